"""Tables and figure of the search for values, from rows written by hand."""

import json

import pytest

from robustloss.reports.chapters.run.table import training_table
from robustloss.reports.chapters.run.tuning import plot_tuning, tuning_tables
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import report_style
from robustloss.reports.page.build import build_report
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run, load_run
from tests.reports.page.test_build import SMALL
from tests.reports.synthetic import write_run


def trial(label, number, settings, error, fgsm, *, chosen=False, reason=None):
    place = {"loss": label.lower(), "label": label, "seed": 0, "trial": number}
    measured = {"validation_error": error, "validation_loss": None if error is None else 0.1}
    place |= {"settings": settings, "chosen": chosen, "reason": reason, **measured, "n": 60}
    if error is None:
        return [{**place, "n": None, "eps": None, "fgsm_error": None}]
    return [{**place, "eps": eps, "fgsm_error": each} for eps, each in fgsm.items()]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("tuned") / "run", SMALL)
    results = json.loads((folder / "results.json").read_text())
    first, second = list(dict.fromkeys(row["label"] for row in results["rows"]))[:2]
    rows = trial(first, 1, {"lr": 0.01}, 0.02, {0.1: 0.4, 0.2: 0.9})
    rows += trial(first, 2, {"lr": 0.1}, 0.01, {0.1: 0.6, 0.2: 0.8}, chosen=True)
    rows += trial(second, 1, {"alpha": 1.0, "covariance": "identity"}, 0.015, {0.1: 0.5, 0.2: 0.7},
                  chosen=True)  # fmt: skip
    rows += trial(
        second, 2, {"alpha": 3.0, "covariance": "diagonal"}, None, {}, reason="became NaN"
    )
    results["trials"] = rows
    log = next(t for t in results["training"] if t["label"] == second)
    log |= {"curve": [], "epochs": 0, "steps": 0, "note": "given, not trained here"}
    (folder / "results.json").write_text(json.dumps(results))
    return folder, first, second


def test_a_trial_of_infinite_cross_entropy_has_a_gap(tuned):
    folder, first, _ = tuned
    run = load_run(folder)
    changed = [row | ({"validation_loss": None} if row["label"] == first else {})
               for row in run.trials]  # fmt: skip
    _, every = tuning_tables(Numbers(Run(run.path, run.results | {"trials": changed})))
    assert [row[3].text for row in every.rows] == ["n/a", "n/a", "0.1000", "n/a"]


def test_what_was_kept_stands_beside_the_spread_over_the_trials(tuned):
    folder, first, second = tuned
    kept, every = tuning_tables(Numbers(load_run(folder)))
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in kept.rows}
    assert rows[first] == [
        *("2", "0", "lr 0.1", "1.00", "1.00–2.00"),
        *("60.00", "40.0–60.0", "80.00", "80.0–90.0"),
    ]
    assert rows[second][:4] == ["2", "1", "alpha 1, covariance identity", "1.50"]
    assert "60 validation images" in kept.caption
    told = [[entry.text for entry in row] for row in every.rows]
    assert [row[-1] for row in told] == ["", "kept", "kept", "became NaN"]
    assert told[3][2:6] == ["n/a"] * 4
    assert told[0][1] == "lr 0.01"


def test_the_figure_has_a_frame_for_each_searched_value_and_keeps_its_numbers(tuned, tmp_path):
    folder, first, _ = tuned
    with report_style():
        album = Album(tmp_path)
        album.add(plot_tuning(Numbers(load_run(folder))))
    (picture,) = album.pictures
    assert f"{first} 1.00 to 2.00 % clean, 40.0 to 60.0 % under FGSM at 0.1" in picture.alt
    lines = picture.numbers.read_text().splitlines()
    assert len(lines) == 1 + 7  # every trial, the diverged one too
    assert lines[0].startswith("label,trial,chosen")
    text = (tmp_path / "tuning.svg").read_text()
    for words in ("lr", "alpha", "covariance", "kept", "some trial diverged", "diagonal"):
        assert f">{words}</text>" in text


def test_the_page_shows_the_search_and_a_run_without_one_does_not(tuned):
    folder, _, _ = tuned
    page = build_report(folder).read_text()
    assert 'id="tuning"' in page
    assert "2 trials of each loss; the values below" in page
    run = load_run(folder)
    before = {key: value for key, value in run.results.items() if key != "trials"}
    assert tuning_tables(Numbers(Run(run.path, before))) == []


def test_a_given_model_has_no_training_in_the_table(tuned):
    folder, _, second = tuned
    numbers = Numbers(load_run(folder))
    logs = [log for log in numbers.run.training if log["label"] == second]
    for log in logs:
        log |= {"curve": [], "epochs": 0}
    row = next(row for row in training_table(numbers).rows if row[0].text == second)
    assert [entry.text for entry in row[2:3]] == ["none"]
    assert {entry.text for entry in row[4:]} == {"n/a"}
