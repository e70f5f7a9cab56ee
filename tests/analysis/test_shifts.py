"""The mean corruption error by hand; a run with shifts, its rows, its page and its proof."""

import numpy as np
import pytest

from robustloss import load_run, run, verify
from robustloss.analysis.tables.shifts import corruption_rows
from robustloss.reports.chapters.detection.shifts import severity_table, shift_table
from robustloss.reports.reading.numbers import Numbers
from tests.small_run import SPEC


def rows_of(label, seed, **errors):
    return [
        {"loss": label, "label": label, "seed": seed, "shift": shift, "severity": k, "error": e}
        for shift, each in errors.items()
        for k, e in enumerate(each, 1)
    ]


def test_the_mean_corruption_error_by_hand():
    rows = [
        *rows_of("a", 0, fog=[0.1, 0.3], snow=[0.0, 0.5]),
        *rows_of("b", 0, fog=[0.2, 0.4], snow=[0.0, 0.25]),
        *rows_of("a", 1, fog=[0.1, 0.1], snow=[0.0, 0.0]),
        *rows_of("b", 1, fog=[0.3, 0.3], snow=[0.5, 0.5]),  # the first never errs on snow
    ]
    a, b = corruption_rows(rows, ["a", "b", "c"])
    assert (a["baseline"], b["baseline"], a["mce"], b["n_seeds"]) == ("a", "a", 1.0, 2)
    # Seed 0: fog .6/.4, snow .25/.5; seed 1: fog .6/.2 alone.
    assert b["mce"] == pytest.approx(np.mean([(1.5 + 0.5) / 2, 3.0]))
    assert b["error"] == pytest.approx(np.mean([0.85 / 4, 1.6 / 4]))
    (one,) = corruption_rows(rows[:4], ["a"])
    assert (one["mce_low"], one["error_low"]) == (None, None)


def test_a_run_with_shifts(tmp_path, no_report, own_cells):
    shifts = [{"name": "noise", "severities": [1, 5]}, {"name": "rotation", "severities": [3]}]
    out = tmp_path / "run"
    run({**SPEC, "seeds": [0], "shifts": shifts}, out=out)
    found = load_run(out)
    rows = found.results["shifts"]
    places = {(row["label"], row["shift"], row["severity"]) for row in rows}
    assert places == {
        (label, *place)
        for label in ("softmax", "L-GM")
        for place in (("Noise", 1), ("Noise", 5), ("Rotation", 3))
    }
    for cell in found.cells:
        record = cell.shifted("Noise", 5)
        (row,) = (
            r for r in rows if (r["label"], r["shift"], r["severity"]) == (cell.label, "Noise", 5)
        )
        assert row["error"] == float(np.mean(record.logits.argmax(1) != record.labels))
        right = record.logits.argmax(1) == record.labels
        score = np.take_along_axis(
            record.class_log_likelihood, record.logits.argmax(1)[:, None], 1
        )[:, 0]
        stored = cell.scores()
        threshold = np.quantile(stored.get(row["score"], ("validation", "", 0.0)), 0.05)
        assert row["rejected_correct_at_5fpr"] == pytest.approx(
            float((score[right] < threshold).mean()), abs=0.03
        )
        with pytest.raises(ValueError, match="no shift 'Fog' at severity 1; there are: Noise at"):
            cell.shifted("Fog", 1)
    assert {row["label"] for row in found.results["corruption"]} == {"softmax", "L-GM"}
    numbers = Numbers(found)
    assert len(shift_table(numbers).rows) == 2
    assert len(severity_table(numbers).rows) == 6
    assert verify(out)
