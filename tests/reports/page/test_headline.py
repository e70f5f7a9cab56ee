"""The answer claims no more than the intervals do."""

from pathlib import Path

import pytest

from robustloss.reports.page.headline import headline
from robustloss.reports.page.notes import warning
from robustloss.reports.page.ranking import rank
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import agreement, published_errors
from robustloss.reports.words import Estimate
from robustloss.results.run import Run


def estimate(mean: float, half: float | None) -> Estimate:
    if half is None:
        return Estimate(mean, None, None, 1, (mean,), None)
    return Estimate(mean, mean - half, mean + half, 3, (mean,) * 3, "t over seeds")


@pytest.mark.parametrize(
    ("halves", "words"),
    [
        ((0.01, 0.01, 0.01), "The 95 % interval of A overlaps no other."),
        (
            (0.01, 0.05, 0.01),
            "Best and worst differ: their 95 % intervals do not overlap. B is",
        ),
        ((0.1, 0.01, 0.12), "No difference shown: the 95 % intervals of best and worst overlap."),
        ((None, None, None), "No difference shown: one training seed gives no interval here."),
    ],
)
def test_verdict(halves: tuple[float | None, ...], words: str) -> None:
    found = {k: estimate(m, h) for k, m, h in zip("CBA", (0.3, 0.15, 0.1), halves, strict=True)}
    order = rank(found, lower_is_better=True)
    assert order is not None
    assert list(order.labels) == ["A", "B", "C"]
    assert order.verdict().startswith(words)


def test_one_seed_speaks_of_models_not_of_losses() -> None:
    one = {k: Estimate(m, m - 0.01, m + 0.01, 1, (m,), "Wilson over images")
           for k, m in (("A", 0.1), ("B", 0.3))}  # fmt: skip
    order = rank(dict(one), lower_is_better=True)
    assert order is not None
    assert order.verdict().endswith("this is about these models, not yet about the losses.")


def test_touching_intervals_overlap() -> None:
    a, b = Estimate(1, 0, 2, 3, (), None), Estimate(3, 2, 4, 3, (), None)
    assert a.overlaps(b) is True
    assert b.overlaps(Estimate(5, 4.1, 6, 3, (), None)) is False
    assert a.overlaps(estimate(3, None)) is None


def test_ranking_direction_and_gaps() -> None:
    found = {"A": estimate(0.9, 0.1), "B": None, "C": estimate(0.7, 0.1)}
    for lower, labels in ((True, ["C", "A"]), (False, ["A", "C"])):
        order = rank(found, lower_is_better=lower)
        assert order is not None
        assert list(order.labels) == labels
    assert rank({"B": None}, lower_is_better=True) is None


def fake(errors: dict[str, list[float]], n: int = 500) -> Numbers:
    """Numbers of a run whose losses have these clean errors, one per seed."""
    from robustloss.analysis.tables.summary import summarise
    from robustloss.metrics.intervals import wilson
    from robustloss.results.schema import TABLES

    rows = []
    for label, values in errors.items():
        for seed, value in enumerate(values):
            low, high = wilson(round(value * n), n)
            row = dict.fromkeys(TABLES["rows"].names) | {
                "loss": label, "label": label, "seed": seed, "attack": "none",
                "attack_label": "none", "eps": 0.0, "n": n, "error": value, "error_low": low,
                "error_high": high, "mean_max_posterior": 0.9,
            }  # fmt: skip
            rows.append(row)
    empty = ("detection", "flags", "worst_case", "failures", "training")
    results = {key: [] for key in empty} | {"rows": rows, "summary": summarise({"rows": rows})}
    results |= {"provenance": {}, "name": "fake"}
    return Numbers(Run(Path(), results), 10)


def test_seeds_that_agree_exactly_show_no_difference_by_themselves() -> None:
    # three seeds at 24 of 500 have a t-interval of no width; over images it is 3.25 to 7.04 %
    clean = headline(fake({"A": [0.048] * 3, "B": [0.062, 0.064, 0.066]}))[0]
    assert "4.80 [3.25, 7.04] %" in clean.answer
    assert clean.limit.startswith("No difference shown")
    apart = headline(fake({"A": [0.048] * 3, "B": [0.162, 0.164, 0.166]}))[0]
    assert apart.limit == "The 95 % interval of A overlaps no other."


def test_one_loss_is_not_compared() -> None:
    finding = headline(fake({"only": [0.02, 0.03]}))[0]
    assert finding.answer.startswith("only is wrong on 2.50 ")
    assert finding.limit == ""


def test_equal_losses_have_no_winner() -> None:
    finding = headline(fake({"A": [0.02], "B": [0.02]}))[0]
    assert finding.answer == "Every loss is wrong on the same share of the test images: " + (
        "2.00 [1.09, 3.64] %."
    )


def test_a_shared_place_names_all_who_share_it() -> None:
    errors = {"A": [0.02], "B": [0.02], "C": [0.3], "D": [0.1], "E": [0.3]}
    answer = headline(fake(errors))[0].answer
    assert answer == (
        "Fewest errors: A and B (2.00 [1.09, 3.64] %). Most: C and E (30.0 [26.1, 34.2] %)."
    )


def test_where_every_number_is_marked_all_are_ranked(run: Run) -> None:
    flags = [
        {"check": "zero_gradient", "label": label, "seed": 0, "attack_label": "FGSM", "eps": 0.3}
        for label in ("softmax", "GM", "L-GM (alpha 1)")
    ]
    numbers = Numbers(Run(run.path, run.results | {"flags": flags}), 10)
    finding = next(f for f in headline(numbers) if f.question == "FGSM, eps 0.3")
    assert finding.answer.startswith("Fewest errors: softmax (")
    assert finding.answer.endswith("All of them are marked †.")


def test_headline_names_the_extremes_of_results(run: Run) -> None:
    numbers = Numbers(run, 10)
    errors = {
        s["label"]: s["mean"]
        for s in run.summary
        if (s["attack_label"], s["eps"], s["metric"]) == ("FGSM", 0.3, "error")
    }
    assert min(errors, key=lambda k: errors[k]) == "softmax"
    del errors["softmax"]  # its gradient is zero for many images: a marked number does not win
    best, worst = min(errors, key=lambda k: errors[k]), max(errors, key=lambda k: errors[k])
    finding = next(f for f in headline(numbers) if f.question == "FGSM, eps 0.3")
    assert finding.answer.endswith("Not ranked, because marked †: softmax.")
    assert f"Fewest errors: {best} ({100 * errors[best]:.1f} [" in finding.answer
    assert f"Most: {worst} ({100 * errors[worst]:.1f} [" in finding.answer
    assert "Guessing: 90 %." in finding.answer


def test_warning_says_nothing_without_an_attack() -> None:
    assert "says nothing about robustness" in warning(fake({"A": [0.1]}))


def test_published_disagreement_is_said_plainly(run: Run) -> None:
    numbers = Numbers(run, 10)
    attack = numbers.attacks[0]
    (table,) = published_errors(numbers, attack)
    assert set(table.error) == {"softmax", "L-GM (alpha 1)"}
    text = agreement(numbers, attack, table)
    ours = numbers.error("softmax", attack, 0.1)
    assert ours is not None
    outside = not ours.low <= 0.2408 <= ours.high  # type: ignore[operator]
    assert (f"{100 * ours.mean:.2f} here and 24.08 there at 0.1" in text) == outside
    assert "one run without an interval" in text


def test_other_alpha_or_data_is_not_the_published_loss(run: Run) -> None:
    numbers = Numbers(run, 10)
    attack = numbers.attacks[0]
    losses = [dict(loss) for loss in numbers.spec["losses"]]
    losses[2] = losses[2] | {"params": {"alpha": 0.3}}
    numbers.spec = {**numbers.spec, "losses": losses}
    assert set(published_errors(numbers, attack)[0].error) == {"softmax"}
    numbers.data = {"name": "fashion_mnist"}
    assert published_errors(numbers, attack) == []
