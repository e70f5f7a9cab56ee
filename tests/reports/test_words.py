"""How numbers and settings are written."""

import pytest

from robustloss.reports.page.run_facts import describe_entry
from robustloss.reports.words import file_name, name_files, short


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("robustloss run /home/me/my.toml --out=/scratch/runs/a --data ~/d/e", "robustloss run "
         "my.toml --out=a --data e"),
        (r"'C:\Users\me\heads.py:Mine' is missing", "'heads.py:Mine' is missing"),
        ("(/a/b/w.pt, line 3); ~me/x/y", "(w.pt, line 3); y"),
        ("runs/mnist at 8/255 and/or https://a.org/b/c, ../x/y, 1 / 2 / 3", None),
    ],
)  # fmt: skip
def test_files_are_named_without_folders_that_another_machine_lacks(
    text: str, shown: str | None
) -> None:
    assert name_files(text) == (text if shown is None else shown)


def test_a_file_of_a_spec_is_named_without_its_folders() -> None:
    names = ["heads.py:Mine", "../my heads/heads.py:Mine", r"C:\a\heads.py:Mine"]
    assert {file_name(name) for name in names} == {"heads.py:Mine"}
    assert file_name("torchvision:resnet18") == "torchvision:resnet18"
