"""The transfer matrix: files, rows, and the flag where a transferred attack is stronger."""

from dataclasses import replace

import numpy as np
import pytest

from robustloss import array_files
from robustloss.analysis.checks.from_transfer import transfer_beats_white_box
from robustloss.analysis.tables.transfers import transfer_rows
from robustloss.metrics.intervals import wilson
from robustloss.results.transfers import Transfer, load_transfer, save_transfer
from robustloss.storage import CorruptFile
from tests.outcomes import first

LOSSES = {"Soft": "softmax", "L-GM": "lgm", "GM": "gm"}


def made(source: str, wrong: dict[str, np.ndarray], **changes) -> Transfer:
    n = len(next(iter(wrong.values())))
    labels = np.arange(n) % 10
    values = {
        "attack": "pgd", "attack_label": "PGD", "norm": "linf", "eps": 0.1, "seed": 3,
        "source": source, "targets": tuple(wrong), "labels": labels,
        "predictions": np.stack([(labels + one) % 10 for one in wrong.values()]),
    }  # fmt: skip
    return Transfer(**(values | changes))


def test_a_file_comes_back_with_equal_bytes_and_equal_content(tmp_path):
    one = made("Soft", {"Soft": first(3, 5), "L-GM": first(1, 5)})
    save_transfer(tmp_path / "a.npz", one)
    save_transfer(tmp_path / "b.npz", one)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = load_transfer(tmp_path / "a.npz")
    assert back.targets == ("Soft", "L-GM")
    np.testing.assert_array_equal(back.predictions, one.predictions)
    names = ("source", "attack", "attack_label", "norm", "eps", "seed")
    assert [getattr(back, name) for name in names] == [getattr(one, name) for name in names]


def test_a_file_that_holds_something_else_is_no_transfer(tmp_path):
    path = tmp_path / "a.npz"
    array_files.write_arrays(path, {"labels": np.zeros(3, int)}, {"source": "Soft"})
    with pytest.raises(CorruptFile, match="holds no transfer: 'targets' is missing"):
        load_transfer(path)
    one = made("Soft", {"Soft": first(3, 5)})
    save_transfer(path, one)
    arrays, meta = array_files.read_arrays(path)
    array_files.write_arrays(path, arrays, meta | {"targets": ["Soft", "GM"]})
    with pytest.raises(CorruptFile, match=r"predictions \(shape \(1, 5\)\) must be \(2, 5\)"):
        load_transfer(path)


@pytest.mark.parametrize("targets", [("GM", "L-GM"), ("Soft", "Soft")])
def test_a_source_is_its_own_target_once(targets):
    one = made("Soft", {"Soft": first(1, 5), "GM": first(1, 5)})
    with pytest.raises(ValueError, match=r"must be different and hold the source \('Soft'\)"):
        replace(one, targets=targets)


def test_the_matrix_by_hand():
    transfers = [
        made("Soft", {"Soft": first(4, 5), "L-GM": first(1, 5)}),
        made("L-GM", {"Soft": first(2, 5), "L-GM": first(3, 5)}),
    ]
    rows = transfer_rows(transfers, {("Soft", 3): 0.02, ("L-GM", 4): 0.5})
    assert [(r["source"], r["target"], r["error"], r["target_clean_error"]) for r in rows] == [
        ("L-GM", "L-GM", 0.6, None),
        ("L-GM", "Soft", 0.4, 0.02),
        ("Soft", "L-GM", 0.2, None),
        ("Soft", "Soft", 0.8, 0.02),
    ]
    assert (rows[0]["error_low"], rows[0]["error_high"]) == wilson(3, 5)
    assert ", ".join(rows[0]) == (
        "seed, source, target, attack, attack_label, norm, eps, n, error, error_low, error_high, "
        "target_clean_error"
    )
    assert transfer_rows(transfers[::-1], {("Soft", 3): 0.02}) == rows


def test_a_stronger_transferred_attack_flags_the_target():
    transfers = [
        made("Soft", {"Soft": first(200), "L-GM": first(120), "GM": first(10)}),
        made("GM", {"Soft": first(60), "L-GM": first(101), "GM": first(100)}),
        made("L-GM", {"Soft": first(60), "L-GM": first(100), "GM": first(60)}),
    ]
    (flag,) = transfer_beats_white_box(transfers, LOSSES)
    assert flag["check"] == "transfer_beats_white_box"
    assert (flag["loss"], flag["label"], flag["seed"]) == ("lgm", "L-GM", 3)
    assert (flag["attack_label"], flag["eps"]) == ("PGD", 0.1)
    assert (flag["value"], flag["threshold"]) == (0.1, 0.01)
    assert "Images that PGD made on Soft raise the error by 10.0 % of the images" in flag["message"]
    assert transfer_beats_white_box(transfers[::-1], LOSSES) == [flag]


@pytest.mark.parametrize("more", [0, 5, 6])
def test_a_few_images_more_are_chance(more):
    # of two rivals the better needs p < 0.05 / 2: six images and none lost
    transfers = [
        made("Soft", {"Soft": first(200), "L-GM": first(100 + more)}),
        made("GM", {"GM": first(200), "L-GM": first(90)}),
        made("L-GM", {"L-GM": first(100)}),
    ]
    assert len(transfer_beats_white_box(transfers, LOSSES)) == (more == 6)


def test_a_single_rival_needs_five_images_more():
    for more in (4, 5):
        transfers = [
            made("Soft", {"Soft": first(200), "L-GM": first(100 + more)}),
            made("L-GM", {"L-GM": first(100)}),
        ]
        assert len(transfer_beats_white_box(transfers, LOSSES)) == (more == 5)


def test_only_the_same_attack_eps_and_seed_are_compared():
    weak = made("L-GM", {"L-GM": first(0), "Soft": first(0)})
    strong = made("Soft", {"Soft": first(200), "L-GM": first(200)})
    assert len(transfer_beats_white_box([weak, strong], LOSSES)) == 1
    for change in ({"eps": 0.2}, {"seed": 4}, {"attack_label": "FGSM"}):
        assert transfer_beats_white_box([weak, replace(strong, **change)], LOSSES) == []
    assert transfer_beats_white_box([strong], LOSSES) == []  # no white box to compare with


def test_other_images_are_refused():
    weak, strong = made("L-GM", {"L-GM": first(0)}), made("Soft", {"Soft": first(200)})
    with pytest.raises(ValueError, match="labels of the images made on 'L-GM' and on 'Soft' diff"):
        transfer_beats_white_box([weak, replace(strong, labels=strong.labels[::-1])], LOSSES)
