"""``python -m robustloss`` is the command ``robustloss``."""

import sys
from pathlib import Path

if __name__ == "__main__":  # worker processes import this module under another name
    # "-m" lets modules be imported from the working directory, before installed packages: a file
    # torchvision.py beside somebody's spec would run. The command "robustloss" never looks there.
    here = Path(sys.path[0]).resolve()
    if not sys.flags.safe_path and here == Path.cwd() and here != Path(__file__).parents[1]:
        del sys.path[0]
    from robustloss.cli.commands import main

    main()
