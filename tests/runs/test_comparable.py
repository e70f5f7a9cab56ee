"""Runs are compared by what attacks, losses and trainings are, not by how they are written."""

import pytest

from robustloss.array_files import read_arrays
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.meaning import find_attack_differences, list_differences
from robustloss.runs.merge import merge_runs
from robustloss.spec.load import load_spec
from tests.drawing import build_report
from tests.small_run import changed, files

NAMES = {"fast one": "FGSM", "Madry": "PGD", "none": "none"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run with every default left out; one that writes them out and calls all otherwise."""
    root = tmp_path_factory.mktemp("runs")
    plain = changed(
        name="plain",
        seeds=[0],
        losses=[{"name": "softmax"}, {"name": "lgm"}],
        attacks=[
            {"name": "fgsm", "eps": [0.1, 0.2]},
            {"name": "pgd", "params": {"steps": 2}, "eps": [0.1]},
            {"name": "mifgsm", "label": "Momentum", "params": {"steps": 2}, "eps": [0.1]},
        ],
    )
    loud = changed(
        name="loud",
        losses=[
            {"name": "SOFTMAX", "label": "plain softmax"},
            {"name": "lgm", "label": "l-gm", "params": {"alpha": 1, "covariance": "identity"}},
            {"name": "center", "train": {"nesterov": True, "lr": 0.01}},
        ],
        attacks=[
            {
                "name": "FGSM",
                "label": "fast one",
                "params": {"objective": "ce", "norm": "linf"},
                "eps": [0.1, 0.2, 0.3],
                "batch_size": 7,
            },
            {"name": "pgd", "label": "Madry", "params": {"norm": "linf", "steps": 2}, "eps": [0.1]},
            {"name": "pgd", "label": "momentum", "params": {"steps": 3}, "eps": [0.1]},
        ],
    )
    for spec in (plain, loud):
        runner.run(spec, out=root / spec["name"])
    return root


@pytest.fixture(scope="module")
def merged(runs, tmp_path_factory):
    before = files(runs / "loud")
    done = merge_runs([runs / "plain", runs / "loud"], tmp_path_factory.mktemp("merged") / "out")
    assert files(runs / "loud") == before  # a comparison leaves the runs as they are
    return done


def test_what_is_the_same_stands_under_one_label(merged):
    run = load_run(merged.path)
    cells = [(cell.label, cell.seed) for cell in run.cells]
    assert cells == [
        *(("Softmax", 0), ("Softmax", 1), ("L-GM", 0), ("L-GM", 1), ("Center", 0), ("Center", 1))
    ]
    attacks = {a["label"]: a["eps"] for a in run.provenance["spec"]["attacks"]}
    assert attacks == {"FGSM": [0.1, 0.2], "PGD": [0.1]}
    assert {row["attack_label"] for row in run.rows} == {"none", *attacks}
    assert run.comparisons


def test_it_is_said_in_a_line_and_other_things_are_told_with_their_values(merged):
    assert (
        "The same by another label: fast one of loud is FGSM, Madry of loud is PGD." in merged.notes
    )
    losses = "The same by another label: plain softmax of loud is Softmax, l-gm of loud is L-GM."
    assert losses in merged.notes
    other = "Momentum is another attack in loud: name is 'mifgsm' in plain, 'pgd' in loud."
    assert other in merged.notes
    assert any("fast one at 0.3" in note and "Left out of loud" in note for note in merged.notes)
    assert not any("trained otherwise" in note for note in merged.notes)
    own = "Center has a training of its own: lr is 0.01 in place of 0.02."
    assert any(note.startswith(own) for note in merged.notes)
    assert not any("nesterov" in note for note in merged.notes)


def test_numbers_scores_and_traces_follow_the_label(runs, merged):
    run, own = load_run(merged.path), load_run(runs / "loud")
    for table in ("rows", "detection", "per_class", "calibration"):
        theirs = [
            row | {"attack_label": NAMES[row["attack_label"]]}
            for row in getattr(own, table, own.results[table])
            if row["label"] == "Center" and row["attack_label"] in NAMES and row["eps"] < 0.3
        ]
        assert theirs
        stored = run.results[table]
        assert [row for row in theirs if row not in stored] == []
    center = next(cell for cell in run.cells if cell.label == "Center")
    assert {one.label for one in center.scores().passes("attacked")} == {"FGSM", "PGD"}
    traces = {
        name for name in read_arrays(center.folder / center.files["probe"])[0] if "trace" in name
    }
    assert traces == {"trace_pgd", "trace_pgd_eps"}
    page = build_report(merged.path).read_text()
    assert [one for one in page.splitlines() if "fast one" in one and "<dt>Note" not in one] == []


def test_the_first_run_gives_the_labels(runs, tmp_path):
    run = load_run(merge_runs([runs / "loud", runs / "plain"], tmp_path / "out").path)
    assert {cell.label for cell in run.cells} == {"plain softmax", "l-gm", "Center"}
    assert {row["attack_label"] for row in run.rows} == {"none", "fast one", "Madry"}


def test_an_attack_has_one_twin(runs, tmp_path):
    """Two attacks of one run that do the same do not share the one of the other run."""
    attacks = [{"name": "fgsm", "label": label, "eps": [0.1]} for label in ("one", "two")]
    spec = changed(name="twice", seeds=[0], losses=[{"name": "center"}], attacks=attacks)
    runner.run(spec, out=tmp_path / "twice")
    merged = merge_runs([tmp_path / "twice", runs / "plain"], tmp_path / "out")
    assert {row["attack_label"] for row in load_run(merged.path).rows} == {"none", "one"}
    assert any("Left out of twice" in note and "two at 0.1" in note for note in merged.notes)


SAME = [
    ({"name": "fgsm"}, {"name": "fgsm", "params": {"objective": "ce"}}),
    ({"name": "pgd"}, {"name": "pgd", "params": {"norm": "linf"}, "batch_size": 3}),
    ({"name": "mine.py:attack"}, {"name": "mine.py:attack"}),
]
OTHER = [
    ({"name": "fgsm"}, {"name": "fgsm", "params": {"objective": "margin"}}, "params.objective"),
    ({"name": "fgsm"}, {"name": "fgsm", "eight_bit": True}, "eight_bit"),
    ({"name": "fgsm"}, {"name": "pgd"}, "name"),
    ({"name": "mine.py:a"}, {"name": "mine.py:a", "batch_size": 3}, "batch_size"),
    ({"name": "torchattacks:PGD"}, {"name": "torchattacks:PGD", "batch_size": 3}, "batch_size"),
]


def differences(first, other):
    loss = {"name": "x", "losses": [{"name": "softmax"}]}
    specs = (load_spec({**loss, "attacks": [{"eps": [0.1], **each}]}) for each in (first, other))
    return find_attack_differences(*(spec.plain()["attacks"][0] for spec in specs))


@pytest.mark.parametrize(("first", "other"), SAME)
def test_the_same_attack(first, other):
    assert differences(first, other) == {}


@pytest.mark.parametrize(("first", "other", "key"), OTHER)
def test_another_attack(first, other, key):
    found = differences(first, other)
    assert list(found) == [key]
    assert list_differences(found, "one", "two").startswith(f"{key} is ")


def test_equal_settings_and_other_weights_keep_both_labels(runs, tmp_path):
    """Somebody who labels two trainings of one loss apart wants them side by side."""
    import shutil

    from robustloss.storage import read_json, write_json

    other = shutil.copytree(runs / "loud", tmp_path / "copy")
    for path in other.glob("cells/plain-softmax/seed-*/cell.json"):
        write_json(path, read_json(path, checked=True) | {"weights": "0" * 16}, checked=True)
    run = load_run(merge_runs([runs / "plain", other], tmp_path / "out").path)
    assert {"Softmax", "plain softmax"} <= {cell.label for cell in run.cells}
