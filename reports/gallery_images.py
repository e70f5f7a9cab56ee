"""The attacked images of a run, with what each loss says about them."""

from collections.abc import Sequence

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.explained import class_names
from robustloss.reports.images import Attacked, ImageGrid, draw_images
from robustloss.reports.scene import Scene, eps_name
from robustloss.reports.style import CROWD
from robustloss.reports.views import View


def add_images(album: Album, scene: Scene) -> None:
    """The first test images that most losses get right, under attack."""
    clean = {k: v for k in scene.labels if isinstance(v := scene.shown.clean(k), View)}
    eps = (0.0, *scene.eps)
    picked = _pick(list(clean.values()), max(1, min(3, 10 // len(eps))))
    if not picked:
        return
    linf = scene.attack.norm == "linf"
    one = next(iter(clean.values()))
    names = class_names(scene.numbers)
    grid = ImageGrid(
        rows=list(clean),
        columns=[eps_name(e) if e else "clean" for e in eps],
        examples=[f"test image {one.index[i]}, class {_class(names, one, i)}" for i in picked],
        cells=[
            [[_cell(view, scene.views.get((k, e)), i, e) for e in eps] for i in picked]
            for k, view in clean.items()
        ],
        change_scale=[e if linf else None for e in eps],
    )
    album.add(
        f"images-{scene.attack.slug}",
        draw_images(grid),
        _arrays(grid),
        title="The attacked images",
        caption="The first test images, of different classes where there are, that most losses "
        "classify correctly when clean. Under each image stand the predicted class, ✓ or ✗, and "
        f"the posterior{_change_words(linf, len(grid.rows))}. Each loss is attacked with its own "
        f"gradient, so the changes differ. {scene.words()}",
        alt=f"Grid of attacked images, losses by eps. {_verdicts(grid)}",
        section=scene.attack.label,
    )


def _class(names: Sequence[str], view: View, place: int) -> str:
    """The number that stands under the images, and the name where it says more."""
    label = int(view.labels[place])
    name = names[label] if label < len(names) else str(label)
    return str(label) if name == str(label) else f"{label} ({name})"


def _change_words(linf: bool, losses: int) -> str:
    if losses > CROWD:
        return ""
    scale = ", full scale ± eps" if linf else ""
    return (
        f"; below it the change that the attack made (grey: none, white: brighter, black: "
        f"darker{scale})"
    )


def _pick(clean: Sequence[View], count: int) -> list[int]:
    """Places of the first images, one of a class, that most losses classify correctly.

    All losses where such images are; a loss that learned nothing must not empty the figure. Where
    the stored images are of too few classes, more of the same.
    """
    if not clean:
        return []
    first = min(len(v.images) for v in clean)
    right = np.sum([~v.wrong[:first] for v in clean], axis=0)
    order = [int(place) for place in np.argsort(-right, kind="stable")]
    picked: dict[int, int] = {}
    for place in order:
        picked.setdefault(int(clean[0].labels[place]), place)
    best = sorted(picked.values(), key=order.index)[:count]
    more = [place for place in order if place not in best]
    return sorted([*best, *more[: count - len(best)]])


def _cell(clean: View, attacked: View | str | None, place: int, eps: float) -> Attacked | None:
    view = clean if eps == 0 else attacked
    if not isinstance(view, View) or len(view.images) <= place:
        return None
    return Attacked(
        view.images[place],
        None if eps == 0 else view.images[place] - clean.images[place],
        int(view.predictions[place]),
        float(view.posterior[place]),
        not bool(view.wrong[place]),
    )


def _verdicts(grid: ImageGrid) -> str:
    parts = []
    for row, by_example in zip(grid.rows, grid.cells, strict=True):
        fooled = [
            name
            for name, cell in zip(grid.columns, by_example[0], strict=True)
            if cell is not None and not cell.right
        ]
        parts.append(f"{row} fooled from {fooled[0]}" if fooled else f"{row} not fooled")
    return f"On {grid.examples[0]}: {', '.join(parts)}."


def _arrays(grid: ImageGrid) -> dict[str, np.ndarray]:
    flat = [cell for row in grid.cells for example in row for cell in example]
    shape = (len(grid.rows), len(grid.examples), len(grid.columns))
    some = next(cell for cell in flat if cell is not None)
    gap = np.full_like(some.image, np.nan)

    def gather(values: list) -> np.ndarray:
        array = np.asarray(values)
        return array.reshape(shape + array.shape[1:])

    return {  # first the names along the three axes
        "losses": np.array(grid.rows),
        "examples": np.array(grid.examples),
        "columns": np.array(grid.columns),
        "images": gather([gap if c is None else c.image for c in flat]),
        "prediction": gather([-1 if c is None else c.prediction for c in flat]),
        "posterior": gather([np.nan if c is None else c.posterior for c in flat]),
        "right": gather([c is not None and c.right for c in flat]),
    }
