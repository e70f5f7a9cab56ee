"""Feature norms and gradients of the training images."""

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.explained import mean, rows
from robustloss.reports.gallery_embedding import SPACE
from robustloss.reports.norms import Norms, draw_norms
from robustloss.reports.numbers import Numbers
from robustloss.reports.views import Shown


def add_norms(album: Album, numbers: Numbers, shown: Shown) -> None:
    """One panel per loss whose gradients are stored."""
    cells = [_norms(numbers, shown, label) for label in numbers.labels]
    drawn = [cell for cell in cells if not cell.gap]
    if not drawn:
        return
    album.add(
        "norms",
        draw_norms(cells),
        [{"label": c.title, "norm": n, "gradient_5": a, "gradient_50": b, "gradient_95": d}
         for c in drawn for n, a, b, d in c.groups().tolist()],
        title="Feature norm, and the gradient left at it",
        caption="How hard the finished loss (classification and regulariser, full margin) still "
        "pulls at the features of training images, against how long the feature is; groups of "
        "equally many images, logarithmic axis. Grey, without a scale of its own: how the norms "
        "are distributed. Losses that normalise features give short ones the larger gradient, as "
        "1/norm; a softmax gives it to what is near a boundary, which is where norms are small; "
        "distance losses pull at what is far from its center. Rank correlation (Spearman) of the "
        "two above each panel; an image whose gradient is exactly 0 lies at the lower end. "
        f"{shown.words(numbers.labels)}",
        alt="Gradient size against feature norm, one panel per loss. "
        + "; ".join(f"{c.title}: {c.note}" for c in drawn) + ".",
        section=SPACE,
    )  # fmt: skip


def _norms(numbers: Numbers, shown: Shown, label: str) -> Norms:
    known = shown.space(label)
    if isinstance(known, str):
        return Norms(label, gap=known)
    if known.norms is None or known.gradients is None:
        return Norms(label, gap="no gradients stored")
    gradients = np.asarray(known.gradients, float)
    fine = np.isfinite(gradients) & np.isfinite(known.norms)
    if not fine.any():
        return Norms(label, gap="no finite gradient")
    seed = shown.cells[label].seed
    found = mean(rows(numbers, "geometry", label, split="train", seed=seed),
                 "gradient_norm_correlation", least=-1.0)  # fmt: skip
    note = "rank correlation n/a" if found is None else f"rank correlation {found.mean:.2f}"
    zero = float((gradients == 0).mean())
    note += f", {100 * zero:.0f} % zero" if zero >= 0.005 else ""
    return Norms(label, known.norms[fine], gradients[fine], note.replace("-", "−"))
