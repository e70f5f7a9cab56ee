"""The reference of the site names everything that is public."""

from pathlib import Path

import robustloss
from robustloss import attacks, losses, metrics

PAGE = Path(__file__).parent.parent / "scripts" / "docs" / "api.md"


def test_the_reference_has_every_public_name():
    listed = [line.removeprefix("::: ") for line in PAGE.read_text().splitlines() if ":::" in line]
    public = [getattr(robustloss, name) for name in robustloss.__all__]
    public += [getattr(attacks, name) for name in attacks.__all__]
    public += [*losses.LOSSES.values(), losses.build_loss, *attacks.ATTACKS.values(), metrics.auroc]
    missing = {
        name
        for each in public
        if callable(each)
        and (name := f"{each.__module__}.{each.__qualname__}") not in listed
        and each.__module__ not in listed
    }
    assert not missing
