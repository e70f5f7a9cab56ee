#!/usr/bin/env bash
# Set up and check format, lint and types; all three run, and one that fails fails the script.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up "[dev]"
cd "$ROOT"
status=0
"$PYTHON" -m ruff format --check . || status=1
"$PYTHON" -m ruff check . || status=1
"$PYTHON" -m mypy || status=1
exit "$status"
