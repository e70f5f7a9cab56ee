"""The error table: losses by eps, with the published numbers under ours."""

from collections.abc import Sequence

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, images, interval_words
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.published import Published, agreement, published_errors
from robustloss.reports.words import estimate, span


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
            Entry(estimate(f, unit=100, digits=2), marks.on(label, attack, e) if f else "",
                  "" if f else "gap")
            for f, e in zip(found, eps, strict=True)
        ]  # fmt: skip
        rows.append([Entry(label), Entry(span([float(s) for s in seeds])), *cells])
        rows += _rounded_row(numbers, attack, label, eps)
        rows += [_published_row(p, label, eps) for p in published if label in p.error]
        data += _error_data(numbers, attack, label, published)
    notes = [*marks.notes(), *_rounded_notes(numbers, attack), *_gap_notes(numbers)]
    return Table(
        f"error-{attack.slug}",
        f"Error under {attack.label}",
        f"Error in percent on {images(numbers)} test images; eps in {eps_words(attack.norm)}, 0 is "
        f"the clean test set. {interval_words(numbers)}",
        ["loss", "seeds", *(f"eps {e:.4g}" if e else "clean" for e in eps)],
        rows,
        data,
        [*notes, *(agreement(numbers, attack, p) for p in published)],
        section=attack.label,
        of_errors=True,
    )


def _gap_notes(numbers: Numbers) -> list[str]:
    return [
        f"Missing: {f.get('label')}, seed {f.get('seed')}: {f.get('stage')} failed, "
        f"{f.get('reason')}"
        for f in numbers.run.failures[:6]
    ]


def _rounded_row(
    numbers: Numbers, attack: AttackInfo, label: str, eps: Sequence[float]
) -> list[list[Entry]]:
    """The same images as an 8-bit file holds them; no row where the spec did not ask for it."""
    found = [numbers.get(label, attack.label, e, "error_8bit") for e in eps]
    if not any(found):
        return []
    cells = [Entry(estimate(f, unit=100, digits=2) if f else "–", kind="detail") for f in found]
    seeds = span([float(s) for s in sorted({f.n_seeds for f in found if f})])
    name = Entry(f"{label}: rounded to 8 bits", kind="detail")
    return [[name, Entry(seeds, kind="detail"), *cells]]


def _rounded_notes(numbers: Numbers, attack: AttackInfo) -> list[str]:
    if not any(
        numbers.get(k, attack.label, e, "error_8bit") for k in numbers.labels for e in attack.eps
    ):
        return []
    return [
        "Rounded to 8 bits: error on the same attacked images after every pixel went to the "
        "nearest k/255 inside box and ball, as an image file would hold it. A clearly lower error "
        "says that the attack lives between the grey levels."
    ]


def _published_row(table: Published, label: str, eps: Sequence[float]) -> list[Entry]:
    values, spread = table.error[label], table.spread.get(label, {})
    texts = {e: f"{100 * value:.2f}" for e, value in values.items()}
    texts |= {e: f"{texts[e]} ± {100 * value:.2f}" for e, value in spread.items()}
    cells = [Entry(texts.get(e, "–"), kind="published") for e in eps]
    return [
        Entry(f"{label}: published ({table.short})", kind="published"),
        Entry("–" if spread else "1", kind="published"),
        *cells,
    ]


def _error_data(
    numbers: Numbers, attack: AttackInfo, label: str, published: Sequence[Published]
) -> list[dict]:
    out = []
    for eps in numbers.error_eps(attack):
        found = numbers.error(label, attack, eps)
        flags = numbers.flags(label, attack.label, eps)
        rounded = numbers.get(label, attack.label, eps, "error_8bit")
        theirs = next((p for p in published if eps in p.error.get(label, {})), None)
        out.append(
            {
                "label": label, "attack_label": attack.label, "norm": attack.norm, "eps": eps,
                "n_seeds": found.n_seeds if found else 0,
                "error": found.mean if found else None, "low": found.low if found else None,
                "high": found.high if found else None,
                "interval": found.interval if found else None,
                "error_8bit": rounded.mean if rounded else None,
                "marks": names(flags),
                "published_error": theirs.error[label][eps] if theirs else None,
                "published_source": theirs.short if theirs else None,
            }
        )  # fmt: skip
    return out
