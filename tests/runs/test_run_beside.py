"""A run beside a reference, from its spec or its command line to the second report."""

import shutil

import pytest

from robustloss.analysis.baseline.reduce import reduce_run
from robustloss.results.compact.file import save_baseline
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.comparable import NotComparableError
from robustloss.spec.text import to_toml
from tests.small_run import SPEC, Counted, changed

pytestmark = pytest.mark.usefixtures("no_report")

MARK = " (reference, 0.1.0)"
MINE = changed(name="mine", seeds=[0], losses=[{"name": "lgm", "label": "Mine"}])


@pytest.fixture(scope="module")
def reference(small_run, tmp_path_factory):
    """The file of a run of softmax and L-GM over two seeds."""
    file = tmp_path_factory.mktemp("beside") / "others.npz"
    save_baseline(file, reduce_run(load_run(small_run)))
    return file


def unplaced(rows, label):
    return [
        {key: value for key, value in row.items() if key not in ("loss", "label", "n_seeds")}
        for row in rows
        if (row["label"], row["seed"]) == (label, 0)
    ]


def test_the_spec_names_a_reference_and_a_second_report_has_its_rows(
    small_run, reference, tmp_path, monkeypatch, command
):
    """The loss is one of the reference's, with the same weights: their numbers must be equal."""
    counted = Counted(monkeypatch)
    path = tmp_path / "mine.toml"
    shutil.copy(reference, tmp_path)
    path.write_text(to_toml(MINE | {"reference": {"beside": "others.npz"}}))
    outcome = runner.run(path, out=tmp_path / "mine", reuse=small_run)
    assert (counted.trained, outcome.exit_code) == (0, 0)
    assert outcome.beside == tmp_path / "mine-beside-others"
    assert outcome.report == outcome.beside / "report" / "index.html"
    assert outcome.notes[0].startswith("Rows marked (reference, VERSION) come from the reference")
    assert f"L-GM{MARK}" in outcome._repr_html_()
    assert {row["label"] for row in load_run(outcome.path).rows} == {"Mine"}

    beside = load_run(outcome.beside)
    labels = ["Mine", f"softmax{MARK}", f"L-GM{MARK}"]
    assert [row.label for row in beside.table().rows] == labels
    assert unplaced(beside.rows, "Mine") == unplaced(beside.rows, f"L-GM{MARK}")
    pairs = {}
    for row in beside.comparisons:
        pairs.setdefault((row["label_a"], row["label_b"]), []).append(row)
    twins = pairs[f"L-GM{MARK}", "Mine"]
    assert {row["metric"] for row in twins} >= {"error", "auroc_all", "undetected_success_at_5fpr"}
    for row in twins:
        exact = row["metric"] not in ("auroc_all", "auroc_successful", "augrc")
        assert row["difference"] == pytest.approx(0.0, abs=1e-12 if exact else 5e-3)
        assert not row["shown"]
    assert any(row["difference"] for row in pairs[f"softmax{MARK}", "Mine"])
    assert (f"softmax{MARK}", f"L-GM{MARK}") not in pairs

    path.write_text(to_toml(MINE))
    words = ("run", path, "--out", tmp_path / "mine", "--beside", reference)
    status, out, _ = command(*words)
    assert status == 0
    assert out.startswith("Note: Rows marked (reference, VERSION) come from the reference others")
    assert f"L-GM{MARK}" in out
    assert load_run(outcome.beside).rows == beside.rows
    assert counted.trained == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seeds": [5]}, r"the seeds are 5 in the first and 0, 1 in the second"),
        (
            {"train": SPEC["train"] | {"epochs": 4}},
            r"train\.epochs is 4 in the first and 3 in the second\. .* show --reference",
        ),
        (  # what a machine of another kind makes of "auto"
            {"train": SPEC["train"] | {"precision": "bfloat16"}},
            r"train\.precision is 'bfloat16' in the first and 'float32' in the second\. Write "
            r'precision = "float32" under \[train\]: with "auto" the machine decides\.',
        ),
        (
            {"data": SPEC["data"] | {"test_size": 70}},
            r"data\.test is 70 in the first and 80 in the second",
        ),
    ],
)
def test_what_cannot_stand_beside_it_is_refused_before_anything_is_trained(
    reference, tmp_path, monkeypatch, change, told
):
    counted = Counted(monkeypatch)
    with pytest.raises(NotComparableError, match=told):
        runner.run(MINE | change, out=tmp_path / "mine", beside=reference)
    assert counted.trained == 0


def test_a_folder_of_something_else_is_told_before_anything_is_trained(
    reference, tmp_path, command
):
    (tmp_path / "mine-beside-others").mkdir()
    (tmp_path / "mine-beside-others/thesis.tex").touch()
    (tmp_path / "mine.toml").write_text(to_toml(MINE))
    status, out, err = command(
        "run", tmp_path / "mine.toml", "--out", tmp_path / "mine", "--beside", reference
    )
    assert (status, out) == (2, "")
    assert "mine-beside-others) is not empty and holds no merged run" in err
    assert not (tmp_path / "mine").exists()
