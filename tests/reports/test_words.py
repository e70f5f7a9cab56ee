"""How numbers and settings are written."""

import pytest

from robustloss.reports.page.run_facts import describe_entry
from robustloss.reports.words import short


@pytest.mark.parametrize(
    ("value", "text"),
    [(3823.4, "3,823"), (999.4, "999"), (12.345, "12.3"), (-0.01234, "−0.0123"), (0.0, "0")],
)
def test_lengths_have_no_exponents(value: float, text: str) -> None:
    assert short(value) == text


def test_a_loss_is_described_by_what_its_table_sets() -> None:
    table = {
        "name": "gm", "label": "GM", "params": {"covariance": "identity"}, "train": {"lr": 0.03},
        "model": {"feature_dim": 64, "params": {"feature_scale": 0.1}},
    }  # fmt: skip
    assert describe_entry(table) == (
        "GM (gm), covariance identity, lr 0.03, feature_dim 64, feature_scale 0.1"
    )
    assert (
        describe_entry({"name": "mine", "label": "mine", "model": "net.py:build"})
        == "mine, model net.py:build"
    )
