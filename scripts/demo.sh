#!/usr/bin/env bash
# From a bare machine with Python 3.11 or later to a report: set up, run the quickstart, say where it is.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up ""
out=$ROOT/runs/quickstart
status=0
"$ENVIRONMENT/bin/robustloss" run quickstart --out "$out" || status=$?
if [ -f "$out/report/index.html" ]; then
    printf '\nThe report: %s\n' "$out/report/index.html"
fi
exit "$status"
