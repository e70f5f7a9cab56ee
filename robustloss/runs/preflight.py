"""Whether all that a spec names can be built: losses, networks, attacks, scores, given models."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from robustloss import attacks, losses
from robustloss.analysis.gates.judge import check_gates
from robustloss.cells import detectors, score_plugins
from robustloss.data.images import Dataset
from robustloss.losses.feasibility import LossWarning, collecting_warnings
from robustloss.models import backbones, build
from robustloss.models.pretrained import choose_statistics, freeze_backbone, load_pretrained
from robustloss.notation import eps_text
from robustloss.spec.attack_kinds import attack_kind
from robustloss.spec.errors import SpecError
from robustloss.spec.prefixes import is_plugin
from robustloss.spec.spec import CellSpec, Spec
from robustloss.storage import digest
from robustloss.training.adversary import check_logits_needed


def check_names(spec: Spec, cells: Sequence[CellSpec], dataset: Dataset) -> None:
    """Build every loss, backbone and attack once, so that a wrong name costs no training.

    Args:
        spec: Whose attacks and scores are checked.
        cells: Its cells and trials, whose losses and networks are checked; none where the models
            are in memory.
        dataset: The data, which decide the shape of an image and the number of classes.

    Raises:
        SpecError: A name or a parameter that its builder refuses; one line for each.

    Warns:
        LossWarning: Parameters that cannot do what they are meant to, once for each loss; the
            builds that follow are silent about it.
    """
    for text in find_remarks(spec, cells, dataset):
        warnings.warn(text, LossWarning, stacklevel=3)


def find_remarks(spec: Spec, cells: Sequence[CellSpec], dataset: Dataset, *_: object) -> list[str]:
    """Build all as `check_names` does, and return the remarks of its LossWarnings.

    Args: as for `check_names`; what else `call_alone` passes is not needed.
    """
    lines: list[str] = []
    warned: list[str] = []
    positions = {loss.label: number for number, loss in enumerate(spec.losses)}
    # Seeds differ in nothing that is built here; trials differ in the parameters of their loss.
    different = {(cell.label, digest(dict(cell.loss.params))): cell for cell in cells}
    for cell in different.values():
        where = f"losses[{positions[cell.label]}]"
        folders = (spec.folder,)
        if cell.loss.given:
            try:
                network = build.describe_network(cell, dataset)
                model = build.build_with_weights(cell.loss.weights, network, folders)
            except ValueError as error:
                key = f"model (={cell.loss.factory})" if cell.loss.factory else "weights"
                text = str(error)  # what is wrong with other keys names them already
                known = text.startswith(("weights (=", "normalize"))
                named = text if known else f"{key}: {text}"
                lines.append(f"{where}.{named}")
            else:
                warned += [f"{where} ({cell.label}): {remark}." for remark in model.remarks]
                if reason := getattr(model, "no_gradient", ""):
                    lines += gradient_mistakes(spec, cell.label, reason)
            continue
        key = "model" if cell.model.weights or cell.model.freeze else "model.backbone"
        with _collecting(lines, f"{key} (for {where})"):
            _build_backbone(cell, dataset, folders)
        with _collecting(lines, where), collecting_warnings() as remarks:
            head = losses.build_loss(
                cell.loss.name,
                feature_dim=cell.model.feature_dim,
                num_classes=dataset.num_classes,
                folders=folders,
                **cell.loss.params,
            )
            if cell.train.adversarial:
                check_logits_needed(cell.train.adversarial, head)
        warned += [f"{where}: {remark}" for remark in remarks]
    lines += _attack_mistakes(spec, dataset)
    with _collecting(lines):
        check_gates(spec.plain())
    if lines:
        raise SpecError("\n".join(dict.fromkeys(lines)))
    return warned


def gradient_mistakes(spec: Spec, label: str, reason: str) -> list[str]:
    """Return a line that names the attacks that need a gradient, which a model does not have.

    Args:
        spec: Whose attacks are checked.
        label: Of the model.
        reason: Why no gradient comes back to the images.

    Returns:
        The line; nothing where no attack needs one.
    """
    found = {
        f"attacks[{number}]": attack.name
        for number, attack in enumerate(spec.attacks)
        if attack_kind(attack.name) not in _WITHOUT_GRADIENT
    }
    if not found:
        return []
    need = "need" if len(found) > 1 else "needs"
    return [
        f"{', '.join(found)} (={', '.join(found.values())}) {need} a gradient, and none comes back "
        f"to the images from {label} ({reason}). Black-box attacks only, as square."
    ]


_WITHOUT_GRADIENT = ("none", "black_box", "other")  # of another's attack it is not known


def _build_backbone(cell: CellSpec, dataset: Dataset, folders: Sequence[Path]) -> None:
    """Build the backbone of a cell, with its trained weights if it has any."""
    mean, _ = choose_statistics(cell.model, dataset.mean, dataset.std)
    backbone = backbones.build_backbone(
        cell.model.backbone,
        image_shape=(len(mean), *dataset.image_shape[1:]),
        feature_dim=cell.model.feature_dim,
        folders=folders,
        **cell.model.params,
    )
    if cell.model.freeze:
        freeze_backbone(backbone, cell.model.backbone)
    if cell.model.weights:
        load_pretrained(backbone, cell.model.backbone, cell.model.weights, folders)


@contextmanager
def _collecting(lines: list[str], where: str = "") -> Iterator[None]:
    """Add what a builder refuses inside the block to the lines, after the place in the spec.

    Args:
        lines: Of all mistakes.
        where: The place; nothing where the message names it.
    """
    try:
        yield
    except ValueError as error:  # a PluginError is one too
        lines.append(f"{where}: {error}" if where else str(error))


def _attack_mistakes(spec: Spec, dataset: Dataset) -> list[str]:
    lines: list[str] = []
    for number, attack in enumerate(spec.attacks):
        where = f"attacks[{number}]"
        with _collecting(lines, where):
            built = attacks.build_attack(attack.name, folders=(spec.folder,), **attack.params)
            if attack.eight_bit and dataset.test.scale != 255:
                lines.append(
                    f"{where}.eight_bit (=true) needs images of 8 bits; the pixels of "
                    f"{dataset.name} have {dataset.test.scale:g} steps. Take the key out."
                )
            if built.norm == "linf" and max(attack.eps) > 1:
                lines.append(
                    f"{where}.eps (={eps_text(max(attack.eps))}) must lie in [0, 1]: pixel units, "
                    "not 0–255."
                )
            aim = detectors.find_target(built) or ""
            lacks = is_plugin(aim) and not score_plugins.find_torch_form(aim, (spec.folder,))
            if lacks and not spec.detection.adapt:  # which attacks what can be attacked
                own = f"{aim.rpartition(':')[2]}_torch"
                lines.append(
                    f"{where}.params.score (={aim}) has no torch form to take gradients of. "
                    f"Write {own} beside it: the same score in torch."
                )
            least = getattr(built, "least_classes", 2)
            if dataset.num_classes < least:
                lines.append(
                    f"{where} (={attack.name}) needs at least {least} classes, the data have "
                    f"{dataset.num_classes}; use 'pgd' with objective 'margin'."
                )
    for number, score in enumerate(spec.detection.scores):
        with _collecting(lines, f"detection.scores[{number}]"):
            score_plugins.check([score], (spec.folder,))
    return lines
