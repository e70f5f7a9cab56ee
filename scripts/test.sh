#!/usr/bin/env bash
# Set up and run the tests; arguments go to pytest (scripts/test.sh -m slow, scripts/test.sh tests/test_data.py).
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up "[dev]"
cd "$ROOT"
# Tests with the real MNIST files run where they are found: ROBUSTLOSS_DATA, or shared/data beside the checkout.
if [ -z "${ROBUSTLOSS_DATA:-}" ] && [ -d ../shared/data/MNIST ]; then
    ROBUSTLOSS_DATA=$(cd ../shared/data && pwd)
    export ROBUSTLOSS_DATA
    printf 'Data: shared/data beside the checkout.\n'
fi
exec "$PYTHON" -m pytest -m "not slow" "$@"
