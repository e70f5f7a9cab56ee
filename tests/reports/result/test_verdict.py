"""The verdict names few losses and counts many; times are a person's."""

import pytest

from robustloss.reports.chapters.result.verdict import describe_detection, verdict
from robustloss.reports.page.run_facts import describe_time
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.result_table import ResultCell, ResultColumn, ResultRow, ResultTable
from tests.reports.differences.compared import comparison, numbers


def differences(count, **place):
    """The second sentence of a run with losses that err less, more and alike in turn."""
    labels = ["base", *(f"L{i}" for i in range(count))]
    turns = [(-0.1, True), (0.1, True), (-0.01, False)]
    rows = [
        comparison(labels[1 + i], "base", eps, difference=by, shown=shown, **place)
        for i, (by, shown) in enumerate((turns * count)[:count])
        for eps in (0.1, 0.2)
    ]
    return verdict(numbers(labels, rows))[1]


def test_few_losses_are_named():
    assert differences(4) == (
        "Against base, fewer errors are shown for L0 and L3, more for L1, no difference for L2 "
        "(FGSM, eps 0.1)."
    )


def test_many_losses_are_counted():
    assert differences(17, unit="images", seed=0) == (
        "Against base, fewer errors are shown for 6 losses, more for 6, no difference for 5 "
        "(FGSM, eps 0.1, one seed)."
    )


def test_what_is_shown_is_told_of_the_worst_case_where_its_errors_are():
    rows = [
        comparison("L", "base", 0.1, shown=shown, attack=attack, attack_label=label)
        for attack, label, shown in (
            ("fgsm", "FGSM", False), ("worst_case", "worst case", True),
        )
    ]  # fmt: skip
    found = numbers(["base", "L"], rows)
    found.run.results["worst_case"] = [
        {"loss": "lgm", "label": label, "seed": 0, "norm": "linf", "eps": 0.1, "n": 100,
         "attacks": ["FGSM", "PGD"], "strongest": "PGD", "strongest_error": 0.2,
         "error": 0.3, "error_low": 0.2, "error_high": 0.4}
        for label in ("base", "L")
    ]  # fmt: skip
    told = verdict(Numbers(found.run))[1]
    assert told == "Against base, fewer errors are shown for L (worst case, eps 0.1)."


def detection(*areas, adaptive=None):
    """The sentence on losses A, B, ... with these AUROC and ends of intervals."""
    of_fgsm = ("FGSM", "", "auroc_all", "fgsm", "FGSM", "linf", 0.2)
    columns = [ResultColumn("auroc-naive", *of_fgsm)]
    columns += [ResultColumn("auroc-adaptive", *of_fgsm)] if adaptive else []
    rows = [
        ResultRow(name, (ResultCell(*area), ResultCell(adaptive))[: len(columns)])
        for name, area in zip("ABCDE", areas, strict=False)
    ]
    return describe_detection(ResultTable("run", "A", tuple(columns), tuple(rows), {}))


def test_the_interval_of_an_auroc_against_a_half_decides_what_is_said():
    above, about, below = (0.8, 0.7, 0.9), (0.6, 0.4, 0.8), (0.141, 0.1, 0.2)
    start, end = "Under FGSM at eps 0.2 images", "over all images"
    assert detection(above, (0.9, 0.85, 0.95), adaptive=0.1) == (
        f"{start} look less likely than clean ones: AUROC {end} 0.800 to 0.900 (guessing: 0.5), "
        "0.100 under the best adaptive attack."
    )
    assert detection(below) == (
        f"{start} look more likely than clean ones: AUROC {end} 0.141 (guessing: 0.5)."
    )
    for unknown in (about, (0.9, None, None)):
        told = detection(unknown)
        assert told.startswith(f"{start} are not shown to look less or more likely than clean ones")
    assert detection(above, below, about).startswith(
        f"{start} look less likely than clean ones for A and more likely for B; no difference is "
        "shown for C: AUROC"
    )
    assert " for 4 losses; no difference is shown for E:" in detection(*[above] * 4, about)


@pytest.mark.parametrize(
    ("started", "finished", "told"),
    [
        ("2026-11-30T05:41:26+00:00", "2026-11-30T05:42:44+00:00", "2026-11-30 05:41 to 05:42 UTC"),
        ("2026-11-30T23:41:26+00:00", "2026-12-01T05:42:44+00:00",
         "2026-11-30 23:41 to 2026-12-01 05:42 UTC"),
        ("2026-11-30T05:41:26+00:00", "2026-11-30T05:41:44+00:00", "2026-11-30 05:41 UTC"),
    ],
)  # fmt: skip
def test_a_time_is_told_to_the_minute(started, finished, told):
    found = describe_time({"started": started, "finished": finished, "seconds": 78.3})
    assert found == f"{told} (78.3 s)"
