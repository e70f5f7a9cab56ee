"""What came of a comparison with a baseline, as verdicts: one for each metric of each loss."""

from collections.abc import Sequence
from dataclasses import asdict

from robustloss.analysis.baseline.judge import LEVEL, Design, Finding
from robustloss.analysis.baseline.measures import METRICS
from robustloss.analysis.gates.verdict import Verdict, Verdicts
from robustloss.notation import eps_text
from robustloss.runs.judging.against import Comparison

MOST_PLACES = 4  # that a sentence names; the others are counted
_DESIGNS: dict[Design, str] = {
    "same networks": "the weights are the baseline's own. The tests ask whether these networks do "
    "worse on images like these",
    "one network each": "one training on each side. The tests ask whether this network does worse "
    "than that one on images like these. Another training of the same loss would differ too. "
    "Only three seeds or more on both sides can show whether the loss got worse",
    "same seeds": "{} seeds on both sides, paired. The tests ask whether the loss does worse when "
    "it is trained again",
    "one seed against several": "{} of its trainings against {} of the baseline. The tests ask "
    "whether the loss got worse by more than its trainings differ among each other",
    "other seeds": "{} seeds against {}. The tests ask whether the loss does worse when it is "
    "trained again",
}


def as_verdicts(found: Comparison) -> Verdicts:
    """Return a verdict for each metric of each loss; "fail" where a number is shown worse.

    Args:
        found: the comparison.
    """
    verdicts = [
        Verdict("cells", label, "fail", "n/a", "as in the baseline", f"{reason}.")
        for label, reason in found.lost.items()
    ]
    groups: dict[tuple[str, str], list[Finding]] = {}
    for metric in METRICS:
        for one in found.findings:
            if one.place.metric == metric:
                groups.setdefault((metric, one.label), []).append(one)
    for (metric, label), own in groups.items():
        worst = min(own, key=lambda one: (one.p_value, -one.worse_by))
        shown = [one for one in own if one.worse]
        more = f" and {len(shown) - MOST_PLACES} more" if len(shown) > MOST_PLACES else ""
        each = "; ".join(f"{_measured(one)}, p {one.p_adjusted:.1g}" for one in shown[:MOST_PLACES])
        facts = {
            "metric": metric,
            "baseline": found.baseline,
            "tests": len(found.findings),
            "places": [_as_plain(one) for one in own],
        }
        verdicts.append(
            Verdict(
                metric,
                label,
                "fail" if shown else "pass",
                _measured(worst),
                _bound(worst),
                f"shown worse: {each}{more}." if shown else "",
                facts,
            )
        )
    return Verdicts(found.run, tuple(verdicts), "comparisons", (*_explain(found), *found.notes))


def _explain(found: Comparison) -> list[str]:
    """Say what was compared with what, and how the tests are to be read."""
    designs: dict[tuple[Design, tuple[int, int]], list[str]] = {}
    for one in found.findings:
        labels = designs.setdefault((one.design, one.seeds), [])
        if one.label not in labels:
            labels.append(one.label)
    lines = [
        f"{', '.join(labels)}: {_DESIGNS[design].format(*seeds)}."
        + (" With two seeds a side only gross differences are shown." if seeds == (2, 2)
           and design != "same networks" else "")
        for (design, seeds), labels in designs.items()
    ]  # fmt: skip
    tests = len(found.findings)
    return [
        f"Compared with {found.baseline}: {tests} tests, adjusted together (Holm), so that at most "
        f"{100 * LEVEL:g} % of the checks of something unchanged show anything worse. A row names "
        "the attack and eps with the smallest p. Its bound is the change that the test shows with "
        'a power of 80 %. "nothing can be shown" means too few images or seeds.',
        *lines,
    ]


def _measured(one: Finding) -> str:
    metric = one.place.metric
    place = one.place.attack_label if one.place.attack != "none" else "clean"
    if one.place.eps:
        place += f" at {eps_text(one.place.eps)}"
    now, before = (_number(metric, value) for value in (one.value, one.baseline))
    return f"{now}, was {before} ({place})"


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "none"
    if metric == "auroc":
        return f"{value:.3f}"
    return f"{value:.3g}" if metric == "median_radius" else f"{100 * value:.3g} %"


def _bound(one: Finding) -> str:
    """Say from which change on a number is shown worse, if any could be."""
    metric, sign = one.place.metric, METRICS[one.place.metric]
    if one.detectable is None:
        return "every image as it was"
    if one.baseline is None:  # half the images had no radius
        return "none"
    if one.detectable > (1 - one.baseline if sign > 0 else one.baseline):
        return "nothing can be shown"
    percent = metric not in ("auroc", "median_radius")
    size = f"{100 * one.detectable:.2g} points" if percent else f"{one.detectable:.2g}"
    return f"shown from {'+' if sign > 0 else '-'}{size}"


def _as_plain(one: Finding) -> dict[str, object]:
    """Return a finding as plain values, its place among them."""
    values = asdict(one)
    del values["label"]
    place: Sequence[object] = values.pop("place")
    return dict(zip(one.place._fields, place, strict=True)) | values | {"seeds": list(one.seeds)}
