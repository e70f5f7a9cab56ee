"""The transfer matrix as a figure."""

import math

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.heatmap import Heat, draw_heatmaps
from robustloss.reports.marks import TRANSFER
from robustloss.reports.matrix import Matrix, matrices
from robustloss.reports.numbers import Numbers
from robustloss.reports.scene import eps_name
from robustloss.reports.words import NOTHING


def add_transfers(album: Album, numbers: Numbers) -> None:
    """One figure for each attack whose images were shown to other losses."""
    for matrix in matrices(numbers):
        _add(album, matrix)


def _add(album: Album, matrix: Matrix) -> None:
    heats = [_heat(matrix, eps) for eps in matrix.eps]
    name = matrix.attack.label
    album.add(
        f"transfer-{matrix.attack.slug}",
        draw_heatmaps(
            heats,
            matrix.labels,
            [f"{label}\n(clean {_clean(matrix, label)})" for label in matrix.labels],
            scale="error of the loss that sees the images (%)",
        ),
        _rows(matrix),
        title=f"Transfer of {name} between the losses",
        caption=f"Error in percent on images that {name} made on one loss (row) and another loss "
        "sees (column); its error on clean images stands under its name. The framed diagonal is "
        "the white-box attack. Images made elsewhere should do less harm than those: a column with "
        "a number above its diagonal is a model that hides its gradient, not one that resists. "
        "† on the diagonal: images made on another loss did better there, beyond chance. Mean "
        "over seeds; intervals are in the table.",
        alt=f"Heat maps of the error under transfer, source by target. {_in_words(matrix)}",
    )


def _heat(matrix: Matrix, eps: float) -> Heat:
    found = [[matrix.get(s, t, eps) for t in matrix.labels] for s in matrix.labels]
    marked = [[_beaten(matrix, s, t, eps) for t in matrix.labels] for s in matrix.labels]
    values = np.array([[100 * f.mean if f else math.nan for f in row] for row in found])
    return Heat(eps_name(eps), values, np.array(marked))


def _beaten(matrix: Matrix, source: str, target: str, eps: float) -> bool:
    """Whether the white-box number was beaten from outside; other doubts stand in the table."""
    return any(f.get("check") == TRANSFER for f in matrix.flags(source, target, eps))


def _clean(matrix: Matrix, label: str) -> str:
    found = matrix.clean(label)
    return f"{100 * found.mean:.1f} %" if found else NOTHING


def _rows(matrix: Matrix) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    for eps in matrix.eps:
        for source in matrix.labels:
            for target in matrix.labels:
                found, clean = matrix.get(source, target, eps), matrix.clean(target)
                out.append(
                    {"eps": eps, "source": source, "target": target,
                     "error_percent": 100 * found.mean if found else None,
                     "target_clean_error_percent": 100 * clean.mean if clean else None,
                     "marked": _beaten(matrix, source, target, eps)}
                )  # fmt: skip
    return out


def _in_words(matrix: Matrix) -> str:
    eps = matrix.eps[len(matrix.eps) // 2]
    own: list[float] = []
    other: list[float] = []
    for source in matrix.labels:
        for target in matrix.labels:
            if found := matrix.get(source, target, eps):
                (own if source == target else other).append(100 * found.mean)
    text = f"At eps {eps:.4g}: white box {min(own):.0f} to {max(own):.0f} %" if own else ""
    return f"{text}, from other losses {min(other):.0f} to {max(other):.0f} %." if other else text
