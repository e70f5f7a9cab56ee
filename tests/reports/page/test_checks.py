"""The section of checks: all of them, what fired and where, what could not be made."""

from pathlib import Path

import pytest

from robustloss.analysis.checks.catalogue import CHECKS
from robustloss.reports.page.checks import (
    MOST_PLACES,
    flags_table,
    unit_test_table,
    verdicts,
    why_not_made,
)
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from tests.reports.reading.test_marks import flag, numbers

NAMES = {
    "zero_gradient", "not_finite_gradient", "margin_beats_cross_entropy",
    "rescaled_logits_beat_cross_entropy", "one_step_beats_many", "error_falls_with_eps",
    "noise_beats_attack", "unit_test_failed",
    "black_box_beats_white_box", "transfer_beats_white_box", "unbounded_attack_fails",
    "loss_still_rising", "output_not_repeatable", "output_is_probability", "outside_ball_or_box",
    "output_depends_on_batch", "too_few_draws",
    "detector_too_good", "one_step_training_collapsed", "training_without_direction",
    "radius_beyond_grey",
}  # fmt: skip


def test_every_check_is_told_once_and_those_that_fired_come_first(
    strong_run: Run, strong_numbers: Numbers
) -> None:
    found = verdicts(strong_numbers)
    assert set(CHECKS) == NAMES
    assert sorted(v.name for v in found) == sorted(name.replace("_", " ") for name in NAMES)
    fired = {f["check"].replace("_", " ") for f in strong_run.flags}
    assert {v.name for v in found if v.state == "fired"} == fired
    states = [v.state for v in found]
    assert states == sorted(states, key=("fired", "quiet", "not made").index)
    for verdict in found:
        count = sum(f["check"].replace("_", " ") == verdict.name for f in strong_run.flags)
        assert (f"fired {count} time" in verdict.result) == (count > 0)


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("zero_gradient", ""),
        ("one_step_beats_many", ""),
        ("black_box_beats_white_box", "needs a black-box attack"),
        ("noise_beats_attack", "needs the noise control"),
        ("unit_test_failed", "needs unit_test = true"),
        ("transfer_beats_white_box", "needs an attack with transfer = true"),
        ("output_is_probability", "the cells have no probe"),
        ("error_falls_with_eps", ""),
        ("too_few_draws", "needs an attack with eot"),
        ("detector_too_good", "needs an attack at some eps and at half of it"),
        ("training_without_direction", "needs adversarial training"),
        ("radius_beyond_grey", "needs an attack that looks for the nearest image in L∞"),
    ],
)
def test_a_check_that_could_not_be_made_does_not_look_passed(check: str, reason: str) -> None:
    known = numbers()
    known.run.results["radii"] = []
    assert why_not_made(known, check).startswith(reason)
    assert bool(why_not_made(known, check)) == bool(reason)


def test_old_runs_had_one_check(strong_run: Run) -> None:
    results = {k: v for k, v in strong_run.results.items() if k != "radii"}
    found = verdicts(Numbers(Run(strong_run.path, results | {"flags": []})))
    assert [v.name for v in found if v.state == "quiet"] == ["zero gradient"]
    assert sum("older than the check" in v.result for v in found) == 20


def test_two_hundred_flags_stay_readable() -> None:
    flags = [
        flag("zero_gradient", attack, eps, label=f"loss {i}") | {"seed": seed, "value": 0.1 + seed}
        for i in range(20) for attack in ("fgsm", "pgd") for eps in (0.1, 0.2) for seed in (0, 1, 2)
    ]  # fmt: skip
    known = numbers(*flags)
    (fired,) = [v for v in verdicts(known) if v.state == "fired"]
    assert fired.result == f"fired {len(flags)} times"
    assert len(fired.places) == MOST_PLACES + 1
    assert fired.places[0] == (
        "loss 0: fgsm at eps 0.1, 0.2 and pgd at eps 0.1, 0.2, seeds 0, 1, 2 "
        "(value 0.1 to 2.1, threshold 0.01)"
    )
    assert fired.places[-1] == "and 8 more losses, in the table of all marks"
    assert len(flags_table(known).rows) == len(flags)


def test_a_flag_without_an_attack_concerns_every_number() -> None:
    known = numbers(flag("output_not_repeatable"), flag("of_a_later_version", "pgd", 0.1))
    found = {v.name: v for v in verdicts(known)}
    assert found["output not repeatable"].places[0].startswith("A: every number of the loss, seed")
    assert found["of a later version"].state == "fired"
    row = [entry.text for entry in flags_table(known).rows[0]]
    assert row == ["output not repeatable", "A", "every", "every", "0", "0.25", "0.01"]


def test_csv_of_flags_is_results(strong_run: Run, strong_report: Path) -> None:
    lines = (strong_report / "tables/flags.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(strong_run.flags) + 1
    assert lines[0] == ",".join(
        ("check", "loss", "label", "seed", "attack_label", "eps", "value", "threshold", "message")
    )


def test_the_table_of_breakable_networks_is_that_of_the_run(
    strong_run: Run, strong_numbers: Numbers
) -> None:
    table = unit_test_table(strong_numbers)
    assert table is not None
    rows = strong_run.results["unit_tests"]
    assert (
        [row["success"] for row in table.data]
        == [row["success"] for row in rows]
        == [1] * len(rows)
    )
    texts = dict(zip(table.header, (entry.text for entry in table.rows[0]), strict=True))
    assert (texts["broken by chance"], texts["others broken by the attack"]) == ("10.0", "100.0")
    assert unit_test_table(numbers()) is None
