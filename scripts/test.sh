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
# One process for each core, with one thread each: the networks of the tests are too small to share.
# The files keep their order: by default those with one long test, such as a fuzzer, come last.
cores=$("$PYTHON" -c 'import os; print(min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))')
export OMP_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE # else every process compiles our modules and the tests anew
exec "$PYTHON" -m pytest -m "not slow" -n "$cores" --dist loadfile --no-loadscope-reorder "$@"
