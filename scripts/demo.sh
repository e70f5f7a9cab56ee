#!/usr/bin/env bash
# From a bare machine with Python 3.11 or later to a report: set up, run the quickstart, say where it is.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up ""
out=$ROOT/runs/quickstart
printf 'The quickstart trains and attacks 12 small networks: about a minute on 2 CPU cores, 100 MB in %s.\n' "$out"
status=0
"$ENVIRONMENT/bin/robustloss" run quickstart --out "$out" || status=$?
if [ -f "$out/report/index.html" ]; then
    printf '\nThe report: %s\n' "$out/report/index.html"
fi
if [ -z "${VIRTUAL_ENV:-}" ]; then
    printf 'The command robustloss is in an environment. In each new terminal, first:\n'
    printf '  source %s/bin/activate\n' "$ENVIRONMENT"
fi
exit "$status"
