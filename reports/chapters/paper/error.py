"""Table 6 of the paper: losses by eps, the published numbers and the difference under ours."""

from collections.abc import Mapping, Sequence

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, images
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import (
    Published,
    count_outside,
    own_tables,
    published_errors,
)
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import (
    Estimate,
    eps_name,
    estimate_fields,
    in_percent,
    minus,
    name_files,
    seed_count,
    span,
)
from robustloss.results.published import describe_absent

IN_8_BITS = "rounded to 8 bits"
ROUNDED = (
    "Rounded to 8 bits: error on the same attacked images after every pixel went to the nearest "
    "k/255 inside box and ball, as an image file would hold it. A clearly lower error says that "
    "the attack lives between the grey levels."
)
BESIDE = (
    " Difference: ours minus published, in points; bold where the published value lies outside our "
    "interval. Network, training and attack can move such numbers by many points."
)
# training and test images of the data sets that the paper's networks were trained on
WHOLE = {"mnist": (60_000, 10_000), "cifar100": (50_000, 10_000)}


def introduce_paper(numbers: Numbers) -> str:
    """Return how much smaller the run is than the paper's, and how many of its numbers fit."""
    tables = [(a, table) for a in numbers.attacks for table in published_errors(numbers, a)]
    found = {
        (table.source, label, attack.label if eps else "", eps): (
            numbers.error(label, attack, eps), value
        )
        for attack, table in tables
        for label, by_eps in table.error.items()
        for eps, value in by_eps.items()
    }  # fmt: skip
    own = {table["source"] for table in own_tables(numbers)}
    told = [describe_absent(numbers, table) for table in own_tables(numbers)]
    if not tables:
        told.insert(0, (
            "Wan et al. (CVPR 2018) give no numbers for these data and losses; the table and "
            "figures have the form of theirs."
        ))  # fmt: skip
    elif found:
        shipped = any(table.source not in own for _, table in tables)
        told.insert(
            0, f"{_compare_sizes(numbers) if shipped else ''}{count_outside(found.values())}"
        )
    return " ".join(filter(None, told))


def _compare_sizes(numbers: Numbers) -> str:
    """Return a sentence on what the run was trained and tested on; nothing if that is not known."""
    train, test = (numbers.data.get(key) for key in ("train", "test"))
    whole = WHOLE.get(str(numbers.data.get("name")))
    if not (train and test and whole) or (train, test) == whole:
        return ""
    own = numbers.spec.get("train") or {}
    epochs = {
        ({**own, **(loss.get("train") or {})}).get("epochs")
        for loss in numbers.spec.get("losses", [])
    }
    known = [each for each in epochs if each]
    tested = f"{test:,} of {whole[1]:,}" if test < whole[1] else f"all {whole[1]:,}"
    return (
        f"Trained on {train:,} of {whole[0]:,} images"
        + (f" for {span(known)} {'epoch' if known == [1] else 'epochs'}" if known else "")
        + f", tested on {tested}; Wan et al. 2018 used all of them. "
    )


def error_table(scene: Scene) -> Table:
    """Return losses by eps: error in percent, and below ours what others published.

    The attack may have no eps above 0.
    """
    numbers, attack = scene.numbers, scene.attack
    published, marks = published_errors(numbers, attack), Marks()
    rows = [row for label in scene.labels for row in _rows_of(scene, label, published, marks)]
    header = ["loss", "seeds", *map(eps_name, attack.with_clean)]
    over = ""
    seeds = {row[1].text for row in rows if not row[0].kind}
    if len(seeds) == 1:  # the caption says it
        header, rows = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
        over = f", mean over {seeds.pop()} training seeds" if len(numbers.seeds) > 1 else ""
    notes = marks.notes()
    if any(row[0].text == IN_8_BITS for row in rows):
        notes.append(ROUNDED)
    notes += [
        f"Missing: {f.get('label')}, seed {f.get('seed')}: {f.get('stage')} failed, "
        + name_files(str(f.get("reason")))
        for f in numbers.run.failures[:6]
    ]
    notes += [f"Published: {each.source}. {each.caveat}" for each in published]
    return Table(
        f"error-{attack.slug}",
        f"Error under {attack.label}",
        f"Error in percent on {images(numbers)} test images{over}. Eps is in "
        f"{eps_words(attack.norm)}; clean is eps 0."
        f"{BESIDE if published else ''}",
        header,
        rows,
        [row for label in scene.labels for row in _error_rows(scene, label, published)],
        notes,
        of_errors=True,
    )


def _rows_of(
    scene: Scene, label: str, published: Sequence[Published], marks: Marks
) -> list[list[Entry]]:
    """Return the rows of one loss: ours, ours as 8-bit files hold the images, and others'."""
    eps = scene.attack.with_clean
    found = {e: scene.error(label, e) for e in eps}
    ours = [
        Entry(in_percent(value), marks.of(scene.flags(label, e)) if value else "",
              "" if value else "gap")
        for e, value in found.items()
    ]  # fmt: skip
    rows = [[Entry(label), Entry(seed_count([*found.values()])), *ours]]
    held = [scene.get(label, e, "error_8bit") for e in eps]  # where the spec asked for it
    if any(held):
        texts = [in_percent(value) if value else "–" for value in held]
        seeds = Entry(seed_count(held))
        rows.append([Entry(IN_8_BITS, kind="detail"), seeds, *map(Entry, texts)])
    for each in published:
        if label in each.error:
            rows += _published_rows(each.name_among(published), each, label, found)
    return rows


def _published_rows(
    name: str, table: Published, label: str, ours: Mapping[float, Estimate | None]
) -> list[list[Entry]]:
    """Return the published values, and below them ours minus these; bold outside our interval."""
    quoted, apart = [], []
    for eps, own in ours.items():
        theirs = table.error[label].get(eps)
        quote = table.quotes[label].get(eps, "–")
        quoted.append(Entry(quote, kind="published"))
        if theirs is None or own is None:
            apart.append(Entry("–"))
            continue
        text = minus(f"{100 * (own.mean - theirs):+.{1 if own.mean >= 0.1 else 2}f}")
        known = own.low is not None and own.high is not None
        outside = known and not own.low <= theirs <= own.high
        apart.append(Entry(text, kind="top" if outside else ""))
    return [
        [Entry(name, kind="published"), Entry("–"), *quoted],
        [Entry("difference", kind="detail"), Entry("–"), *apart],
    ]


def _error_rows(scene: Scene, label: str, published: Sequence[Published]) -> list[dict]:
    """Return the exact errors of one loss for the CSV, and the first published one at each eps."""
    out = []
    for eps in scene.attack.with_clean:
        rounded = scene.get(label, eps, "error_8bit")
        theirs = next((p for p in published if eps in p.error.get(label, {})), None)
        out.append(
            {"label": label, "attack_label": scene.attack.label, "norm": scene.attack.norm,
             "eps": eps, **estimate_fields(scene.error(label, eps), "error"),
             "error_8bit": rounded.mean if rounded else None,
             "marks": names(scene.flags(label, eps)),
             "published_error": theirs.error[label][eps] if theirs else None,
             "published_source": theirs.short if theirs else None}
        )  # fmt: skip
    return out
