"""The verdict names few losses and counts many; times are a person's."""

import pytest

from robustloss.reports.chapters.result.verdict import verdict
from robustloss.reports.page.run_facts import describe_time
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
