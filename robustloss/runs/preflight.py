"""Whether all that a spec names can be built: losses, networks, attacks, scores, given models."""

import warnings
from collections.abc import Sequence

from robustloss import attacks, losses
from robustloss.attacks.plugins import PluginError
from robustloss.cells import score_plugins
from robustloss.data.images import Dataset
from robustloss.losses.feasibility import LossWarning, collecting_warnings
from robustloss.models import backbones, build
from robustloss.models.build import describe_network
from robustloss.spec.errors import SpecError
from robustloss.spec.spec import CellSpec, Spec
from robustloss.storage import digest
from robustloss.training.adversary import check_logits_needed


def check_names(spec: Spec, cells: Sequence[CellSpec], dataset: Dataset) -> None:
    """Builds every loss, backbone and attack once, so that a wrong name costs no training.

    Raises:
        SpecError: A name or a parameter that its builder refuses.

    Warns:
        LossWarning: Parameters that cannot do what they are meant to, once for each loss; the
            builds that follow are silent about it.
    """
    lines: list[str] = []
    warned: list[str] = []
    positions = {loss.label: number for number, loss in enumerate(spec.losses)}
    different = {(cell.label, digest(dict(cell.loss.params))): cell for cell in cells}
    for cell in different.values():
        where = f"losses[{positions[cell.label]}]"
        if cell.loss.given:
            lines += _given_mistakes(cell, spec, dataset, where)
            continue
        try:
            backbone = backbones.build_backbone(
                cell.model.backbone,
                image_shape=dataset.image_shape,
                feature_dim=cell.model.feature_dim,
                folders=(spec.folder,),
                **cell.model.params,
            )
            del backbone
        except (PluginError, ValueError) as error:
            lines.append(f"model.backbone (for {where}): {error}")
        try:
            with collecting_warnings() as remarks:
                head = losses.build_loss(
                    cell.loss.name,
                    feature_dim=cell.model.feature_dim,
                    num_classes=dataset.num_classes,
                    folders=(spec.folder,),
                    **cell.loss.params,
                )
            if cell.train.adversarial:
                check_logits_needed(cell.train.adversarial, head)
        except (PluginError, ValueError) as error:
            lines.append(f"{where}: {error}")
        warned += [f"{where}: {remark}" for remark in remarks]
    lines += _attack_mistakes(spec, dataset)
    if lines:
        raise SpecError("\n".join(dict.fromkeys(lines)))
    for text in warned:
        warnings.warn(text, LossWarning, stacklevel=3)


def check_attacks(spec: Spec, dataset: Dataset) -> None:
    """Builds every attack and score once.

    Raises:
        SpecError: A name or a parameter that its builder refuses.
    """
    if lines := _attack_mistakes(spec, dataset):
        raise SpecError("\n".join(dict.fromkeys(lines)))


def _attack_mistakes(spec: Spec, dataset: Dataset) -> list[str]:
    lines: list[str] = []
    for number, attack in enumerate(spec.attacks):
        where = f"attacks[{number}]"
        try:
            built = attacks.build_attack(attack.name, folders=(spec.folder,), **attack.params)
        except (PluginError, ValueError) as error:
            lines.append(f"{where}: {error}")
            continue
        if attack.eight_bit and dataset.test.scale != 255:
            lines.append(
                f"{where}.eight_bit (=true) needs images of 8 bits; the pixels of {dataset.name} "
                f"have {dataset.test.scale:g} steps. Take the key out."
            )
        if built.norm == "linf" and max(attack.eps) > 1:
            lines.append(
                f"{where}.eps (={max(attack.eps):g}) must lie in [0, 1]: pixel units, not 0–255."
            )
    for number, score in enumerate(spec.detection.scores):
        try:
            score_plugins.check([score], (spec.folder,))
        except PluginError as error:
            lines.append(f"detection.scores[{number}]: {error}")
    return lines


def _given_mistakes(cell: CellSpec, spec: Spec, dataset: Dataset, where: str) -> list[str]:
    """Returns why a model from elsewhere cannot be used: it is loaded and looked over."""
    key = f"model (={cell.loss.factory})" if cell.loss.factory else "weights"
    try:
        build.build_with_weights(cell.loss.weights, describe_network(cell, dataset), (spec.folder,))
    except ValueError as error:
        text = str(error)
        return [f"{where}.{text}" if text.startswith("weights (=") else f"{where}.{key}: {text}"]
    return []
