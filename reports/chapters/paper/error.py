"""The error table: losses by eps, with the published numbers under ours."""

from collections.abc import Sequence

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, images, interval_words
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.published import Published, agreement, published_errors
from robustloss.reports.words import eps_name, estimate_fields, in_percent, name_files, seed_count

ROUNDED = (
    "Rounded to 8 bits: error on the same attacked images after every pixel went to the nearest "
    "k/255 inside box and ball, as an image file would hold it. A clearly lower error says that "
    "the attack lives between the grey levels."
)


def error_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """Return losses by eps: error in percent, and below ours what others published.

    Args:
        numbers: Of the run.
        attack: Also one without eps above 0.
    """
    eps = numbers.error_eps(attack)
    marks = Marks(numbers)
    published = published_errors(numbers, attack)
    rows, rounded = [], False
    for label in numbers.labels:
        found = [numbers.error(label, attack, e) for e in eps]
        cells = [Entry(label), Entry(seed_count(found))]
        for value, e in zip(found, eps, strict=True):
            mark = marks.on(label, attack, e) if value else ""
            cells.append(Entry(in_percent(value), mark, "" if value else "gap"))
        rows.append(cells)
        # the same images as an 8-bit file holds them, where the spec asked for it
        found = [numbers.get(label, attack.label, e, "error_8bit") for e in eps]
        if any(found):
            rounded = True
            texts = [f"{label}: rounded to 8 bits", seed_count(found)]
            texts += [in_percent(value) if value else "–" for value in found]
            rows.append([Entry(text, kind="detail") for text in texts])
        rows += [_published_row(each, label, eps) for each in published if label in each.error]
    notes = [*marks.notes(), *([ROUNDED] if rounded else [])]
    notes += [
        f"Missing: {f.get('label')}, seed {f.get('seed')}: {f.get('stage')} failed, "
        + name_files(str(f.get("reason")))
        for f in numbers.run.failures[:6]
    ]
    return Table(
        f"error-{attack.slug}",
        f"Error under {attack.label}",
        f"Error in percent on {images(numbers)} test images; eps in {eps_words(attack.norm)}, 0 is "
        f"the clean test set. {interval_words(numbers)}",
        ["loss", "seeds", *map(eps_name, eps)],
        rows,
        [row for label in numbers.labels for row in error_rows(numbers, attack, label, published)],
        [*notes, *(agreement(numbers, attack, each) for each in published)],
        of_errors=True,
    )


def _published_row(table: Published, label: str, eps: Sequence[float]) -> list[Entry]:
    spread = table.spread.get(label, {})
    texts = [f"{label}: published ({table.short})", "–" if spread else "1"]
    for e in eps:
        around = f" ± {100 * spread[e]:.2f}" if e in spread else ""
        known = e in table.error[label]
        texts.append(f"{100 * table.error[label][e]:.2f}{around}" if known else "–")
    return [Entry(text, kind="published") for text in texts]


def error_rows(
    numbers: Numbers, attack: AttackInfo, label: str, published: Sequence[Published]
) -> list[dict]:
    """Return the exact errors of one loss for the CSV, and the first published one at each eps.

    Args:
        numbers: Of the run.
        attack: Of the table.
        label: Of the loss.
        published: What others published about this attack.
    """
    out = []
    for eps in numbers.error_eps(attack):
        rounded = numbers.get(label, attack.label, eps, "error_8bit")
        theirs = next((p for p in published if eps in p.error.get(label, {})), None)
        out.append(
            {"label": label, "attack_label": attack.label, "norm": attack.norm, "eps": eps,
             **estimate_fields(numbers.error(label, attack, eps), "error"),
             "error_8bit": rounded.mean if rounded else None,
             "marks": names(numbers.flags(label, attack.label, eps)),
             "published_error": theirs.error[label][eps] if theirs else None,
             "published_source": theirs.short if theirs else None}
        )  # fmt: skip
    return out
