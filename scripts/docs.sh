#!/usr/bin/env bash
# Build the guide, the results and the API reference as a static site: build/site/index.html.
# A warning fails it. The code is read and not imported, so the site has a small environment of its own.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

ENVIRONMENT=$ROOT/build/docs-env
PYTHON=$ENVIRONMENT/bin/python
cd "$ROOT"
mkdir -p build
"$PYTHON" -m mkdocs --version >/dev/null 2>&1 || {
    make_environment
    "$PYTHON" -m pip install --quiet -r scripts/docs/requirements.txt
}
rm -rf build/docs
mkdir build/docs
tar -cf - README.md CHANGELOG.md LICENSE reports/gallery robustloss/guide | tar -xf - -C build/docs
cp scripts/docs/api.md build/docs
NO_MKDOCS_2_WARNING=1 "$PYTHON" -m mkdocs build --strict -f scripts/docs/mkdocs.yml
printf 'The site is %s\n' "$ROOT/build/site/index.html"
