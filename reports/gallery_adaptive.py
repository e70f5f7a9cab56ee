"""The fall of the detector when the attack knows it, as a figure."""

from robustloss.reports.album import Album
from robustloss.reports.fall import Fall, draw_falls
from robustloss.reports.guarded import BEST, Guarded, Rival, guarded
from robustloss.reports.numbers import Numbers
from robustloss.reports.scene import eps_name


def add_falls(album: Album, numbers: Numbers) -> None:
    """One figure for each norm with an adaptive attack."""
    for found in guarded(numbers):
        if found.of_kind("naive") and found.of_kind(BEST):
            _add(album, found)


def _add(album: Album, found: Guarded) -> None:
    grid = [
        (label, [_fall(found, label, eps) for eps in found.eps]) for label in found.numbers.labels
    ]
    start = found.of_kind("naive")[0].label
    album.add(
        f"adaptive-fall-{found.norm}",
        draw_falls(grid, start),
        _rows(found),
        title=f"The detector falls when the attack knows it, {found.norm_name}",
        caption=f"AUROC of the likelihood at the predicted class, over all attacked images. Grey: "
        f"under {start} and the other attacks that only want a wrong class. Orange: under attacks "
        "that want a wrong class that is also likely; the diamond takes the best of them image by "
        "image. Left of the dotted line attacked images look more typical than clean ones. An "
        "arrow that is long says that the high AUROC on its right was owed to an attack that did "
        "not try. Mean over seeds; intervals are in the table.",
        alt=f"Arrows from the AUROC under {start} to that under the best adaptive attack, one "
        f"panel per loss. {_in_words(found)}",
    )


def _fall(found: Guarded, label: str, eps: float) -> Fall:
    def values(kind: str) -> list[float]:
        known = [found.get(label, rival, eps, "auroc_all") for rival in found.of_kind(kind)]
        return [value.mean for value in known if value]

    best = values(BEST)
    return Fall(eps_name(eps), values("naive"), values("adaptive"), best[0] if best else None)


def _rows(found: Guarded) -> list[dict[str, object]]:
    def auroc(label: str, rival: Rival, eps: float) -> float | None:
        value = found.get(label, rival, eps, "auroc_all")
        return value.mean if value else None

    return [
        {"label": label, "eps": eps, "attack_label": rival.label, "kind": rival.kind,
         "auroc_all": auroc(label, rival, eps)}
        for label in found.numbers.labels
        for eps in found.eps
        for rival in found.rivals
    ]  # fmt: skip


def _in_words(found: Guarded) -> str:
    eps = found.eps[-1]
    parts = []
    for label in found.numbers.labels:
        fall = _fall(found, label, eps)
        if fall.naive and fall.best is not None:
            parts.append(f"{label} from {fall.naive[0]:.2f} to {fall.best:.2f}")
    return f"At {eps_name(eps)}: {', '.join(parts)}."
