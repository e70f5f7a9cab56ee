"""Builds wheel and sdist with setuptools, and stops in a checkout without our two links.

The sources of ``robustloss.attacks`` and ``robustloss.reports`` lie in ``attacks/`` and
``reports/`` at the top of the repository; two symbolic links lead there. In a checkout without
links (Git on Windows, some archives) setuptools would leave both packages out without a word.
"""

from pathlib import Path

_HERE = Path(__file__).parent
for _name in ("attacks", "reports"):
    if not (_HERE / _name / "__init__.py").is_file():
        raise SystemExit(
            f"robustloss/{_name} must be a link to ../{_name}, and this checkout has none. Clone "
            "again with links: git clone -c core.symlinks=true URL (on Windows, first turn on the "
            f"developer mode). Or copy the folder {_name}/ to robustloss/{_name}."
        )

from setuptools.build_meta import *  # noqa: E402, F403
