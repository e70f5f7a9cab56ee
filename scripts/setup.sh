# shellcheck shell=bash
# Sourced by the other scripts: find or make an environment and install robustloss into it.
#
#   set_up ""     what a run needs          set_up "[dev]"     and what the tests need
#
# afterwards: $ROOT is the checkout, $ENVIRONMENT the environment, $PYTHON its interpreter.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1

stop() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# An interpreter may be on the PATH and still not start (version managers leave such names behind).
find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        if is_new_enough "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    stop "Python 3.11 or later is needed and none of python3.13, python3.12, python3.11, python3 is one. Install it, or activate an environment that has it."
}

make_environment() {
    local base
    base=$(find_python)
    "$base" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        stop "$base cannot make a virtual environment: its venv module is not complete. Install it (Debian and Ubuntu: the package python3-venv), or activate an environment."
    printf 'Making the environment %s with %s.\n' "$ENVIRONMENT" "$("$base" --version)"
    "$base" -m venv --clear "$ENVIRONMENT" >"$ROOT/.venv.log" 2>&1 ||
        stop "the environment $ENVIRONMENT could not be made: $(tail -n 1 "$ROOT/.venv.log")"
    rm -f "$ROOT/.venv.log"
}

choose_environment() {
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        ENVIRONMENT=$VIRTUAL_ENV
        PYTHON=$ENVIRONMENT/bin/python
        is_new_enough "$PYTHON" ||
            stop "the active environment $ENVIRONMENT has no Python 3.11 or later. Deactivate it, or activate another."
        return
    fi
    ENVIRONMENT=$ROOT/.venv
    PYTHON=$ENVIRONMENT/bin/python
    # Half made by an interrupted run, or dead because its Python was removed: made anew.
    "$PYTHON" -c '' >/dev/null 2>&1 || make_environment
    "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null 2>&1 || true
    is_new_enough "$PYTHON" ||
        stop "$ENVIRONMENT holds a Python older than 3.11. Delete that folder and start again."
}

install() {
    local extra=$1 log=$ENVIRONMENT/robustloss-install.log
    "$PYTHON" -m pip --version >/dev/null 2>&1 ||
        stop "the environment $ENVIRONMENT has no pip. Add it ($PYTHON -m ensurepip), or deactivate the environment."
    printf 'Installing robustloss%s into %s: the first time some minutes and about 6 GB of disk.\n' "$extra" "$ENVIRONMENT"
    if ! "$PYTHON" -c 'import torch' >/dev/null 2>&1; then
        printf 'Without a GPU, 4 GB of them can be spared: Ctrl-C, then this, then the script again.\n'
        printf '  %s -m pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu\n' "$PYTHON"
    fi
    # Stamps of an older state, or of another checkout in the same environment, hold no longer.
    rm -f "$ENVIRONMENT"/.robustloss*
    # pip is quiet for long on a slow line, so what it fetches is shown; the log has the rest.
    if ! "$PYTHON" -m pip install --editable "$ROOT$extra" 2>&1 | tee "$log" |
        while IFS= read -r line; do
            case $line in *Downloading* | Installing*) printf '%s\n' "$line" ;; esac
        done; then
        tail -n 15 "$log" >&2
        stop "the installation failed; the lines above are the last of $log. Run this again once the cause is gone."
    fi
}

set_up() {
    local extra=$1 stamp wanted
    choose_environment
    stamp=$ENVIRONMENT/.robustloss$extra
    wanted="$ROOT $(cksum <"$ROOT/pyproject.toml")"
    local known
    for known in "$stamp" "$ENVIRONMENT/.robustloss[dev]"; do # [dev] holds everything
        if [ -f "$known" ] && [ "$(cat "$known")" = "$wanted" ]; then
            return
        fi
    done
    install "$extra"
    printf '%s\n' "$wanted" >"$stamp"
}
