"""With strong attacks the answer leads with them, and the warning says what remains."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from robustloss.reports.page.headline import headline
from robustloss.reports.page.notes import warning
from robustloss.reports.page.ranking import Finding
from robustloss.reports.reading.featured import featured
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from robustloss.results.schema import TABLES


def run_with(*attacks: str, test: int | None = None, **tables: list) -> Numbers:
    """One loss under attacks of these names, without a number worth reading."""
    rows = [
        dict.fromkeys(TABLES["rows"].names)
        | {"loss": "gm", "label": "A", "seed": 0, "attack": name, "attack_label": name, "n": 200,
           "norm": "linf", "eps": 0.1 if name != "none" else 0.0, "error": 0.5}
        for name in ("none", *attacks)
    ]  # fmt: skip
    results: dict[str, object] = {
        key: [] for key in ("summary", "detection", "failures", "training", "flags", "worst_case")
    }
    data = {"data": {"name": "digits", "test": test}}
    results |= {"rows": rows, "provenance": data, "name": "fake"}
    return Numbers(Run(Path(), results | tables))


def test_one_step_alone_is_warned_of_as_before() -> None:
    assert warning(run_with("fgsm")).startswith("FGSM alone does not show robustness.")
    named = warning(run_with("fgsm", "torchattacks:FFGSM"))
    assert named.startswith("fgsm and torchattacks:FFGSM alone does not show robustness")


@pytest.mark.parametrize(
    ("attacks", "missing"),
    [
        (("fgsm", "pgd"), {"without gradients", "minimum-norm", "knows the detector"}),
        (("pgd", "square"), {"minimum-norm", "knows the detector"}),
        (("pgd", "square", "cw"), {"knows the detector"}),
        (("pgd", "square", "cw", "adaptive_joint"), set()),
    ],
)
def test_warning_names_what_was_not_run(attacks: tuple[str, ...], missing: set[str]) -> None:
    text = warning(run_with(*attacks))
    assert text.startswith(f"Errors are those that {len(attacks)} attacks found")
    assert "FGSM" not in text
    every = ("without gradients", "minimum-norm", "knows the detector")
    assert {words for words in every if words in text} == missing
    assert ("Not run:" in text) == bool(missing)


def test_warning_tells_when_not_all_images_were_attacked() -> None:
    assert "200 of 10,000 test images were attacked" in warning(run_with("pgd", test=10_000))
    assert "test images" not in warning(run_with("pgd", test=200))


def by_question(numbers: Numbers) -> dict[str, Finding]:
    return {finding.question: finding for finding in headline(numbers)}


def means(run: Run, **wanted: object) -> Mapping[str, float]:
    return {
        s["label"]: s["mean"]
        for s in run.summary
        if all(s[key] == value for key, value in wanted.items())
    }


def test_worst_case_and_radius_lead(strong_run: Run, strong_numbers: Numbers) -> None:
    found = by_question(strong_numbers)
    assert list(found) == [
        "Clean images", "Worst of 8 attacks, L∞ eps 0.05", "How far to the first mistake, L∞",
        "Worst of 2 attacks, L2 eps 0.5", "How far to the first mistake, L2",
        "Noticed when the attack knows it, L∞", "Wrong and accepted all the same, L∞",
        "FGSM, eps 0.05", "FGSM, eps 0.2",
    ]  # fmt: skip
    place = {"attack": "worst_case", "norm": "linf"}
    errors = means(strong_run, **place, metric="error", eps=0.2)
    low, high = (100 * value for value in (min(errors.values()), max(errors.values())))
    answer = found["Worst of 8 attacks, L∞ eps 0.05"].answer
    assert f"At eps 0.2: {low:.1f} to {high:.1f} %." in answer
    radii = means(strong_run, **place, metric="median_radius")
    order = sorted(radii, key=lambda label: -radii[label])
    text = found["How far to the first mistake, L∞"].answer
    assert [text.index(f"{label} {radii[label]:.3f}") for label in order] == sorted(
        text.index(f"{label} {radii[label]:.3f}") for label in order
    )


def test_fall_of_the_detector_is_told_for_every_loss(
    strong_run: Run, strong_numbers: Numbers
) -> None:
    finding = by_question(strong_numbers)["Noticed when the attack knows it, L∞"]

    def mean(label: str, attack: str) -> float:
        rows = [
            r["auroc_all"] for r in strong_run.adaptive
            if (r["label"], r["attack_label"], r["eps"], r["score"])
            == (label, attack, 0.2, "class_log_likelihood")
        ]  # fmt: skip
        return sum(rows) / len(rows)

    below = []
    for label in strong_numbers.labels:
        start, end = mean(label, "FGSM"), mean(label, "best of adaptive")
        told = finding.answer[finding.answer.index(f"{label} {start:.3f}") :]
        assert f" to {end:.3f}" in told.split(";")[0]
        below += [label] if end < 0.5 else []
    assert ("Below 0.5" in finding.limit) == bool(below)
    assert below


def test_a_loss_that_is_never_half_fooled_is_named(strong_run: Run) -> None:
    results = dict(strong_run.results)
    hidden = ("median_radius", "eps_at_50_error")
    results["summary"] = [
        s | {"mean": None, "n_seeds": 0, "values": []}
        if s["label"] == "softmax" and s["attack"] == "worst_case" and s["metric"] in hidden
        else s
        for s in results["summary"]
    ]
    found = by_question(Numbers(Run(strong_run.path, results), 10))
    finding = found["How far to the first mistake, L∞"]
    assert "Not half of the images of softmax fall within the eps of this run." in finding.answer
    assert finding.limit == ""


def test_featured_are_the_first_the_strongest_and_the_least_noticed(
    strong_run: Run, strong_numbers: Numbers
) -> None:
    chosen = [attack.label for attack in featured(strong_numbers)]
    assert len(chosen) == 3
    assert chosen[0] == "FGSM"
    errors: dict[str, list[float]] = {}
    for s in strong_run.summary:
        naive = s["norm"] == "linf" and not s["attack"].startswith(("adaptive", "worst"))
        if naive and s["metric"] == "error" and s["eps"]:
            errors.setdefault(s["attack_label"], []).append(s["mean"])
    assert sum(errors[chosen[1]]) == pytest.approx(max(sum(values) for values in errors.values()))
    assert chosen[2].startswith("Adaptive")
    assert featured(run_with("fgsm", "pgd", "cw")) == run_with("fgsm", "pgd", "cw").attacks
