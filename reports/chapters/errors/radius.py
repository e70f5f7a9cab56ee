"""How far to the first mistake: radii and error curves in numbers, losses ranked by them."""

from collections.abc import Sequence

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, seed_words
from robustloss.reports.reading.featured import featured
from robustloss.reports.reading.marks import Marks, flags_of, names
from robustloss.reports.reading.numbers import WORST, AttackInfo, Numbers
from robustloss.reports.words import NORM_NAMES, NOTHING, Estimate, estimate
from robustloss.spec.attack_kinds import attack_kind

METRICS = ("median_radius", "eps_at_50_error", "area_under_error_curve")
UNKNOWN = "–"


def radius_table(numbers: Numbers, norm: str) -> Table | None:
    """Attacks and losses of one norm by radius; losses in the order of the first attack's."""
    curves = numbers.curves(norm)
    if not curves:
        return None
    marks = Marks(numbers)
    shown = [attack for attack in curves if _told(numbers, attack)]
    rows, data = [], []
    for attack in curves:
        for label in ranked(numbers, curves[0]):
            if numbers.radii(label, attack):
                rows += [_row(numbers, label, attack, marks)] if attack in shown else []
                data.append(_data(numbers, label, attack))
    set_aside = " The CSV has every attack." if len(shown) < len(curves) else ""
    return Table(
        f"radius-{norm}",
        f"How far to the first mistake, {NORM_NAMES.get(norm, norm)}",
        "Networks trained without a defence all end near 100 % error under strong attacks at L∞ "
        "eps 0.1 and above, where an error ranks nothing. So losses stand in the order of how far "
        f"{curves[0].label} must go, farthest first. Median radius: the smallest change that fools "
        "half of the images, known where an attack looks for the smallest change (n found: images "
        "for which it found any; clean mistakes have radius 0). Eps at 50 % error: where the error "
        "curve crosses 50 %, read between the eps of the run for an attack with fixed eps. Area: "
        "mean error in percent over eps from 0 to the largest of the run; lower is better. The "
        "worst case knows an attack with fixed eps at these eps only, so such an attack, read "
        f"between them, may seem to do better than it. Radius and eps in {eps_words(norm)}."
        f"{set_aside} {seed_words(numbers)}",
        ["attack", "loss", "median radius", "eps at 50 % error", "area under the error curve",
         "n found"],
        rows,
        data,
        marks.notes(),
        left=2,
    )  # fmt: skip


def minimum_norm(numbers: Numbers, attack: AttackInfo) -> bool:
    """Whether an attack looks for the smallest change; a user's own shows it by its radii."""
    rows = [row for label in numbers.labels for row in numbers.radii(label, attack)]
    known = any(row["median_radius"] is not None for row in rows)
    return attack_kind(attack.name) == "minimum_norm" or known


def _told(numbers: Numbers, attack: AttackInfo) -> bool:
    """Of many attacks the worst case, those with radii and the featured ones are told."""
    return attack.name == WORST or minimum_norm(numbers, attack) or attack in featured(numbers)


def ranked(numbers: Numbers, curve: AttackInfo) -> list[str]:
    """Losses by how far an attack must go, farthest first; those without a number come last.

    By the eps at 50 % error. A loss whose curve never gets there is better than all whose does;
    among those the area under it decides.
    """

    def key(label: str) -> tuple[int, float]:
        half, area = (numbers.get(label, curve.label, None, metric) for metric in METRICS[1:])
        if half is not None:
            return 1, -half.mean
        return (0, area.mean) if area is not None else (2, 0.0)

    return sorted(numbers.labels, key=key)


def _row(numbers: Numbers, label: str, attack: AttackInfo, marks: Marks) -> list[Entry]:
    rows = numbers.radii(label, attack)
    radius, half, area = (numbers.get(label, attack.label, None, m) for m in METRICS)
    never = f"> {max(row['eps_max'] for row in rows):.4g}" if area else NOTHING
    texts = [
        _length(radius, rows) if radius else UNKNOWN,
        _length(half, rows) if half else never,
        estimate(area, unit=100, digits=2),
    ]
    mark = marks.on(label, attack, None)
    cells = [Entry(text, "" if text in (NOTHING, UNKNOWN) else mark) for text in texts]
    found = _found(rows)
    total = f"{found[0]:,} of {found[1]:,}" if found else UNKNOWN
    return [Entry(attack.label), Entry(label), *cells, Entry(total)]


def _length(value: Estimate, rows: Sequence[dict]) -> str:
    """A length with three digits that count; seeds that never got there are told."""
    digits = 4 if value.mean < 0.1 else 3 if value.mean < 1 else 2
    missing = len(rows) - value.n_seeds
    never = f" ({missing} of {len(rows)} seeds never)" if missing else ""
    return estimate(value, digits=digits) + never


def _found(rows: Sequence[dict]) -> tuple[int, int] | None:
    """Images with a radius, of how many, over all seeds; None for an attack with fixed eps."""
    known = [(int(r["n_found"]), int(r["n"])) for r in rows if r["n_found"] is not None]
    return (sum(k for k, _ in known), sum(n for _, n in known)) if known else None


def _data(numbers: Numbers, label: str, attack: AttackInfo) -> dict[str, object]:
    rows = numbers.radii(label, attack)
    found = _found(rows) or (None, sum(int(row["n"]) for row in rows))
    out: dict[str, object] = {
        "label": label,
        "attack_label": "worst case" if attack.name == WORST else attack.label,
        "norm": attack.norm,
    }
    for metric in METRICS:
        value = numbers.get(label, attack.label, None, metric)
        out |= {
            metric: value.mean if value else None,
            f"{metric}_low": value.low if value else None,
            f"{metric}_high": value.high if value else None,
            f"{metric}_n_seeds": value.n_seeds if value else 0,
        }
    return out | {
        "n_found": found[0],
        "n": found[1],
        "eps_max": max(row["eps_max"] for row in rows),
        "marks": names(flags_of(numbers, label, attack, None)),
    }
