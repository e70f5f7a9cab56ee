"""The losses of the README, copied out as a newcomer would, keep the contract."""

import re
from pathlib import Path

import pytest

from robustloss.losses.contract.check import check_loss

README = Path(__file__).parents[2] / "README.md"
BLOCKS = {
    re.search(r"class (\w+)\(LossHead\)", block)[1]: block
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    if "(LossHead)" in block
}


def test_the_readme_shows_one_loss_of_each_style():
    assert list(BLOCKS) == ["CosineSoftmax", "RunningCenters", "NPairs"]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_loss_of_the_readme_keeps_the_contract(name, tmp_path):
    path = tmp_path / "loss.py"
    path.write_text(BLOCKS[name], encoding="utf-8")
    failed = [f"{c.name}: {c.detail}" for c in check_loss(f"{path}:{name}") if not c.passed]
    assert failed == []
