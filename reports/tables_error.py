"""The error table: losses by eps, with the published numbers under ours."""

from collections.abc import Sequence

from reports.numbers import AttackInfo, Numbers
from reports.published import Published, agreement, published_errors
from reports.table import Entry, Table
from reports.words import estimate, span


class Marks:
    """Numbers the checks that fired on a table, and writes their footnotes."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self._notes: dict[str, list[str]] = {}

    def at(self, label: str, attack: str, eps: float) -> str:
        """The marks of one number: "†1", or nothing."""
        checks = []
        for flag in self.numbers.flags(label, attack, eps):
            check = str(flag.get("check"))
            where = f"{label}, eps {eps:g}"
            if flag.get("seed") is not None:
                where += f", seed {flag['seed']}"
            self._notes.setdefault(check, []).append(f"{where}: {flag.get('message')}")
            checks.append(f"†{[*self._notes].index(check) + 1}")
        return " ".join(dict.fromkeys(checks))

    def notes(self) -> list[str]:
        """One footnote a check; repeats of the same words are named once."""
        out = []
        for i, (check, lines) in enumerate(self._notes.items()):
            first, more = lines[0], len(dict.fromkeys(lines)) - 1
            rest = f" And {more} more, listed under “Failures and marks”." if more else ""
            out.append(f"†{i + 1} {check.replace('_', ' ')}: {first}{rest}")
        return out


def error_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """Losses by eps: error in percent, the published numbers under ours where there are some."""
    eps = numbers.error_eps(attack)
    marks = Marks(numbers)
    published = published_errors(numbers, attack)
    rows, data = [], []
    for label in numbers.labels:
        found = [numbers.error(label, attack, e) for e in eps]
        seeds = sorted({f.n_seeds for f in found if f})
        cells = [
            Entry(estimate(f, unit=100, digits=2), marks.at(label, attack.label, e) if f else "",
                  "" if f else "gap")
            for f, e in zip(found, eps, strict=True)
        ]  # fmt: skip
        rows.append([Entry(label), Entry(span([float(s) for s in seeds])), *cells])
        rows += [_published_row(p, label, eps) for p in published if label in p.error]
        data += _error_data(numbers, attack, label, published)
    notes = [*marks.notes(), *_gap_notes(numbers)]
    return Table(
        f"error-{attack.slug}",
        f"Error under {attack.label}",
        f"Error in percent on {_images(numbers)} test images; eps in "
        f"{'pixel units' if attack.norm == 'linf' else 'Euclidean length'}, 0 is the clean test "
        f"set. {_interval_words(numbers)}",
        ["loss", "seeds", *(f"eps {e:.4g}" if e else "clean" for e in eps)],
        rows,
        data,
        [*notes, *(agreement(numbers, attack, p) for p in published)],
        section=attack.label,
    )


def _gap_notes(numbers: Numbers) -> list[str]:
    return [
        f"Missing: {f.get('label')}, seed {f.get('seed')}: {f.get('stage')} failed, "
        f"{f.get('reason')}"
        for f in numbers.run.failures[:6]
    ]


def _images(numbers: Numbers) -> str:
    return f"{numbers.images:,}" if numbers.images else "no"


def _interval_words(numbers: Numbers) -> str:
    if len(numbers.seeds) > 1:
        return "± is half a 95 % t-interval over training seeds; one seed alone has [Wilson 95 %]."
    return "[low, high] is a 95 % Wilson interval over images; one training seed."


def _published_row(table: Published, label: str, eps: Sequence[float]) -> list[Entry]:
    values = table.error[label]
    cells = [Entry(f"{100 * values[e]:.2f}" if e in values else "–", kind="published") for e in eps]
    return [
        Entry(f"{label}: published ({table.short})", kind="published"),
        Entry("1", kind="published"),
        *cells,
    ]


def _error_data(
    numbers: Numbers, attack: AttackInfo, label: str, published: Sequence[Published]
) -> list[dict]:
    out = []
    for eps in numbers.error_eps(attack):
        found = numbers.error(label, attack, eps)
        flags = numbers.flags(label, attack.label, eps)
        out.append(
            {
                "label": label, "attack_label": attack.label, "norm": attack.norm, "eps": eps,
                "n_seeds": found.n_seeds if found else 0,
                "error": found.mean if found else None, "low": found.low if found else None,
                "high": found.high if found else None,
                "interval": found.interval if found else None,
                "marks": " ".join(sorted({str(f.get("check")) for f in flags})),
                "published_error": next(
                    (p.error[label].get(eps) for p in published if label in p.error), None
                ),
            }
        )  # fmt: skip
    return out
