"""The attacked images of a run, with what each loss says about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.style import (
    ADVERSARIAL,
    CROWD,
    FAINT,
    PAGE_WIDTH,
    SOFT,
    legible,
    plain,
    wrap,
)
from robustloss.reports.reading.facts import class_names
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

CHANGE = "the change (grey: none, white: brighter, black: darker"
RIGHT_INK = "#00694D"
LETTER = 0.088  # width of a letter of a title, in inches, rather too much
BETWEEN = 0.06  # inches between two images of one source
GAP = 0.3  # inches between two sources


@dataclass(frozen=True)
class Attacked:
    """One image under attack."""

    image: np.ndarray  # (C, H, W) in [0, 1]
    # (C, H, W) in [0, 1]: grey where the attack changed nothing; None for the clean image
    change: np.ndarray | None
    prediction: int  # class index
    posterior: float  # of that class, in [0, 1]
    right: bool

    @classmethod
    def of(
        cls, clean: View, view: View | str, place: int, scale: float | None
    ) -> "Attacked | None":
        """Take one image from a pass; None where the pass has no such image.

        Args:
            clean: The clean pass of the same loss.
            view: The pass: the clean one too, or why there is none.
            place: Index among the stored images.
            scale: Change in pixel units that is drawn black or white; None for the largest one.
        """
        if isinstance(view, str) or len(view.images) <= place:
            return None
        image, change = view.images[place], None
        if view is not clean:
            change = image - clean.images[place]
            scale = scale or float(np.abs(change).max()) or 1.0
            change = np.clip(0.5 + change / (2 * scale), 0, 1)
        prediction, posterior = int(view.predictions[place]), float(view.posterior[place])
        return cls(image, change, prediction, posterior, not bool(view.wrong[place]))


@dataclass(frozen=True)
class ImageGrid:
    """Rows of losses by columns of eps, for one or more source images."""

    rows: Sequence[str]  # names of the losses
    columns: Sequence[str]  # names of the eps
    examples: Sequence[str]  # caption of each source image: "test image 12, class 7"
    cells: Sequence[Sequence[Sequence[Attacked | None]]]  # [loss][example][eps]; None is a gap

    @classmethod
    def of(cls, scene: Scene) -> "ImageGrid | None":
        """Take the first images that most losses get right; None where no loss has any."""
        clean = {k: v for k in scene.labels if isinstance(v := scene.shown.clean(k), View)}
        eps = (0.0, *scene.eps)
        picked = pick_images(list(clean.values()), max(1, min(3, 10 // len(eps))))
        if not picked:
            return None
        first, names, examples = next(iter(clean.values())), class_names(scene.numbers), []
        for place in picked:
            # the number stands under the images too, so a name only explains it
            label = str(first.labels[place])
            name = dict(enumerate(names)).get(int(label), label)
            called = label if name == label else f"{label} ({name})"
            examples.append(f"test image {first.index[place]}, class {called}")
        scales = [e if scene.attack.norm == "linf" else None for e in eps]
        cells = []
        for label, view in clean.items():
            passes = [scene.views[label, e] if e else view for e in eps]
            pairs = list(zip(passes, scales, strict=True))
            cells.append([[Attacked.of(view, p, place, s) for p, s in pairs] for place in picked])
        return cls(list(clean), [eps_name(e) for e in eps], examples, cells)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the images and what is said of them, each (losses, examples, eps, ...)."""
        flat = [cell for row in self.cells for example in row for cell in example]
        axes = {"losses": self.rows, "examples": self.examples, "columns": self.columns}
        shape = tuple(map(len, axes.values()))
        gap = np.full_like(next(cell.image for cell in flat if cell is not None), np.nan)
        values: dict[str, list] = {
            "images": [gap if c is None else c.image for c in flat],
            "prediction": [-1 if c is None else c.prediction for c in flat],
            "posterior": [np.nan if c is None else c.posterior for c in flat],
            "right": [c is not None and c.right for c in flat],
        }
        named = {name: np.array(names) for name, names in axes.items()}
        arrays = {name: np.asarray(each) for name, each in values.items()}
        return named | {name: a.reshape(shape + a.shape[1:]) for name, a in arrays.items()}


def plot_images(scene: Scene) -> Iterator[Plot]:
    """Draw the first test images that most losses get right, under attack."""
    grid = ImageGrid.of(scene)
    if grid is None:
        return
    change = ""
    if len(grid.rows) <= CROWD:
        scale = ", full scale ± eps" if scene.attack.norm == "linf" else ""
        change = f"; below it {CHANGE}{scale})"
    fooled = []  # from which eps on each loss gets the first source image wrong
    for row, (first, *_) in zip(grid.rows, grid.cells, strict=True):
        named = zip(grid.columns, first, strict=True)
        wrong = [name for name, cell in named if cell is not None and not cell.right]
        fooled.append(f"{row} fooled from {wrong[0]}" if wrong else f"{row} not fooled")
    yield Plot(
        f"images-{scene.attack.slug}",
        draw_images(grid),
        grid.arrays(),
        title="Clean and attacked images",
        caption="Clean and attacked test images; under each the predicted class, ✓ or ✗, and the "
        f"posterior{change}. They are the first of different classes that most networks classify "
        "correctly when clean. Each is attacked with its own gradient, so the changes differ. "
        f"{scene.words()}",
        alt=f"Grid of attacked images, losses by eps. On {grid.examples[0]}: {', '.join(fooled)}.",
    )


def pick_images(clean: Sequence[View], count: int) -> list[int]:
    """Return places of the first images, one of a class, that most losses classify correctly.

    All losses where such images are; a loss that learned nothing must not empty the figure. Where
    the stored images are of too few classes, more of the same.

    Args:
        clean: The clean pass of each loss.
        count: Images wanted.
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


def draw_images(grid: ImageGrid) -> Figure:
    """Draw each image, the verdict under it, and the change that the attack made below that.

    Of many losses the changes are left out.
    """
    sources, across = len(grid.examples), len(grid.columns) * len(grid.examples)
    left, gaps = 1.35, GAP * (sources - 1)
    size = min(0.7, (PAGE_WIDTH - left - 0.1 - gaps) / across - BETWEEN)
    step = size + BETWEEN
    room = len(grid.columns) * step + GAP  # of one source
    titles = list(grid.examples)
    if any(len(text) * LETTER > room for text in titles):
        titles = [text.replace(", ", "\n", 1) for text in titles]
    top = 0.62 + 0.16 * any("\n" in text for text in titles)
    changes = len(grid.rows) <= CROWD
    row_height = 2 * size + 0.42 if changes else size + 0.3
    width = left + across * step + gaps + 0.1
    height = top + len(grid.rows) * row_height
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))  # in inches: one for all images
    ax.set_axis_off()
    for r, name in enumerate(grid.rows):
        y = height - top - r * row_height
        lines = [line[:17] for line in wrap(plain(name, 34), 15)]
        ax.text(0.12, y - size / 2, "\n".join(lines), fontsize=9.5 if changes else 8,
                weight="bold", va="center")  # fmt: skip
        if changes:
            ax.text(0.12, y - 1.5 * size - 0.28, "change", fontsize=8.5, color=SOFT, va="center")
        for e in range(sources):
            for c, cell in enumerate(grid.cells[r][e]):
                x = left + e * room + c * step
                _draw_attacked(ax, cell, x, y, size)
                if changes and cell is not None and cell.change is not None:
                    _show(ax, cell.change, (x, x + size, y - 2 * size - 0.24, y - size - 0.24))
    for e, text in enumerate(titles):
        start = left + e * room
        ax.text(start, height - top + 0.42, text, fontsize=9.5, weight="bold", va="center")
        for c, eps in enumerate(grid.columns):
            ax.text(start + c * step + size / 2, height - top + 0.18, eps, fontsize=8.5,
                    ha="center", va="center")  # fmt: skip
    ax.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    return figure


def _draw_attacked(ax: Axes, cell: Attacked | None, x: float, y: float, size: float) -> None:
    """Draw one image with its upper left corner at (x, y), and the verdict under it."""
    if cell is None:
        ax.text(x + size / 2, y - size / 2, "no\nrecord", fontsize=7.5, ha="center", va="center",
                color=SOFT, style="italic")  # fmt: skip
        return
    _show(ax, cell.image, (x, x + size, y - size, y))
    colour, sign = (RIGHT_INK, "✓") if cell.right else (legible(ADVERSARIAL), "✗")
    ax.text(
        x + size / 2, y - size - 0.115, f"{cell.prediction} {sign} {chance(cell.posterior)}",
        fontsize=min(8.5, 9 * size / 0.75), color=colour, ha="center", va="center",
    )  # fmt: skip


def _show(ax: Axes, image: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    picture = np.moveaxis(image, 0, -1)
    picture = picture[..., 0] if picture.shape[-1] not in (3, 4) else picture[..., :3]
    ax.imshow(
        np.clip(picture, 0, 1), extent=extent, cmap="gray", vmin=0, vmax=1, aspect="auto",
        interpolation="none",
    )  # fmt: skip
    left, right, bottom, top = extent
    ax.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color=FAINT,
            lw=0.6)  # fmt: skip


def chance(posterior: float) -> str:
    """Return a posterior as a short percentage; never rounded up to certainty."""
    if posterior > 0.999:
        return ">99.9 %"
    return f"{100 * posterior:.0f} %" if posterior <= 0.985 else f"{100 * posterior:.1f} %"
