"""``python -m robustloss`` is the command ``robustloss``."""

from robustloss.cli.commands import main

if __name__ == "__main__":  # worker processes import this module under another name
    main()
