"""The losses of README and guide, copied out as a newcomer would, keep the contract."""

import re
from pathlib import Path

import pytest

from robustloss.losses.contract.check import check_loss

ROOT = Path(__file__).parents[2]
LOSSES = {
    f"{page}:{name}": block
    for page in ("README.md", "robustloss/guide/losses.md")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    for name in re.findall(r"class (\w+)\(LossHead\)", block)
}


def test_the_guide_shows_one_loss_of_each_style():
    names = [name.partition(":")[2] for name in LOSSES]
    assert names == ["CosineSoftmax", "CosineSoftmax", "RunningCenters", "NPairs"]


@pytest.mark.parametrize("place", LOSSES)
def test_a_loss_of_a_page_keeps_the_contract(place, tmp_path):
    path = tmp_path / "loss.py"
    path.write_text(LOSSES[place], encoding="utf-8")
    name = place.partition(":")[2]
    failed = [f"{c.name}: {c.detail}" for c in check_loss(f"{path}:{name}") if not c.passed]
    assert failed == []
