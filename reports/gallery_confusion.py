"""Which classes are taken for which, clean and under attack: matrices, or a table of pairs."""

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.confusion import (
    MOST_CLASSES,
    Confusion,
    confusion,
    draw_confusions,
    off_diagonal,
    row_percent,
)
from robustloss.reports.explained import class_names
from robustloss.reports.featured import featured
from robustloss.reports.gallery_embedding import SPACE
from robustloss.reports.numbers import AttackInfo, Numbers
from robustloss.reports.table import Entry, Table
from robustloss.reports.views import Shown, View

MOST_PAIRS = 20


def passes(numbers: Numbers) -> list[tuple[AttackInfo | None, float]]:
    """The clean pass, and the first featured attack at a middle eps."""
    found: list[tuple[AttackInfo | None, float]] = [(None, 0.0)]
    for attack in featured(numbers)[:1]:
        found.append((attack, attack.strengths[(len(attack.strengths) - 1) // 2]))
    return found


def counts(
    numbers: Numbers, shown: Shown, label: str, attack: AttackInfo | None, eps: float
) -> np.ndarray | str:
    """(K, K) true class by predicted class of one model, or why there is none."""
    view = shown.clean(label) if attack is None else shown.attacked(label, attack, eps)
    if not isinstance(view, View):
        return view
    return confusion(view.labels, view.predictions, numbers.classes or 1)


def add_confusions(album: Album, numbers: Numbers, shown: Shown) -> None:
    """Matrices of up to twenty classes."""
    if not numbers.classes or numbers.classes > MOST_CLASSES:
        return
    for attack, eps in passes(numbers):
        found = {k: counts(numbers, shown, k, attack, eps) for k in numbers.labels}
        cells = [_cell(label, value) for label, value in found.items()]
        if not all(cell.gap for cell in cells):
            _add(album, numbers, shown, attack, eps, cells)


def _cell(label: str, found: np.ndarray | str) -> Confusion:
    if isinstance(found, str):
        return Confusion(label, gap=found)
    wrong = found.sum() - np.trace(found)
    note = f"error {100 * wrong / max(1, found.sum()):.2f} %"
    return Confusion(label, row_percent(found), note)


def _add(
    album: Album, numbers: Numbers, shown: Shown, attack: AttackInfo | None, eps: float,
    cells: list[Confusion],
) -> None:  # fmt: skip
    where = "clean" if attack is None else f"{attack.label}, eps {eps:.4g}"
    names = class_names(numbers)
    album.add(
        "confusion-clean" if attack is None else f"confusion-{attack.slug}",
        draw_confusions(cells, names),
        [{"label": c.title, "true_class": i, "predicted_class": j, "percent": float(p)}
         for c in cells if not c.gap for (i, j), p in np.ndenumerate(c.percent)],
        title=f"Which classes are taken for which: {where}",
        caption="Each row is a true class and adds up to 100 %; the column says what its images "
        "are taken for. Numbers are percent of the row, empty is none. The diagonal, the share "
        "that is right, is grey: colour shows errors only, on one scale for all losses of this "
        f"figure, steeper for small shares. {shown.words(numbers.labels)}",
        alt=f"Confusion matrices, {where}. Largest error of each loss: "
        + "; ".join(_largest(c, names) for c in cells if not c.gap) + ".",
        section=SPACE,
    )  # fmt: skip


def _largest(cell: Confusion, names: list[str]) -> str:
    errors = cell.percent.copy()
    np.fill_diagonal(errors, -1)
    i, j = np.unravel_index(np.nanargmax(errors), errors.shape)
    if errors[i, j] <= 0 or not off_diagonal(cell.percent).size:
        return f"{cell.title}: none"
    return f"{cell.title}: {names[i]} taken for {names[j]}, {errors[i, j]:.1f} %"


def confusion_tables(numbers: Numbers, shown: Shown) -> list[Table]:
    """For more than twenty classes: the pairs that are most confused, over the losses."""
    if not numbers.classes or numbers.classes <= MOST_CLASSES:
        return []
    out = []
    for attack, eps in passes(numbers):
        found = {
            k: value for k in numbers.labels
            if not isinstance(value := counts(numbers, shown, k, attack, eps), str)
        }  # fmt: skip
        if found:
            out.append(_pairs(numbers, shown, attack, eps, found))
    return out


def _pairs(
    numbers: Numbers, shown: Shown, attack: AttackInfo | None, eps: float,
    found: dict[str, np.ndarray],
) -> Table:  # fmt: skip
    names = class_names(numbers)
    shares = {label: row_percent(value) for label, value in found.items()}
    average = np.nan_to_num(np.nanmean(np.stack(list(shares.values())), axis=0))
    np.fill_diagonal(average, 0)
    order = np.argsort(-average, axis=None, kind="stable")[:MOST_PAIRS]
    rows, data = [], []
    for place in order:
        i, j = (int(k) for k in np.unravel_index(place, average.shape))
        if average[i, j] <= 0:
            break
        own = {label: float(value[i, j]) for label, value in shares.items()}
        top, low = max(own, key=own.__getitem__), min(own, key=own.__getitem__)
        rows.append(
            [Entry(names[i]), Entry(names[j]), Entry(f"{average[i, j]:.1f}"),
             Entry(f"{own[low]:.1f} ({low})"), Entry(f"{own[top]:.1f} ({top})")]
        )  # fmt: skip
        data += [
            {"true_class": names[i], "predicted_class": names[j], "label": label,
             "share": value / 100, "count": int(found[label][i, j])}
            for label, value in own.items()
        ]  # fmt: skip
    where = "clean" if attack is None else f"{attack.label}, eps {eps:.4g}"
    return Table(
        "confused-clean" if attack is None else f"confused-{attack.slug}",
        f"Most confused classes: {where}",
        f"Of {numbers.classes} classes the {MOST_PAIRS} pairs with the highest share of images of "
        "the true class that are taken for the other, mean over losses; in percent of the true "
        f"class's images. The CSV has every loss. {shown.words(numbers.labels)}",
        ["true class", "taken for", "mean over losses", "lowest", "highest"],
        rows,
        data,
        left=2,
        section=SPACE,
    )
