"""The detector that an attack meets: that of the likelihood, or of another score in torch form."""

from pathlib import Path

from robustloss.analysis.detection.scores import FITS, build_scores, is_offered
from robustloss.attacks import Attack
from robustloss.cells import score_plugins
from robustloss.evaluation.detector import LikelihoodView, detector_view, score_view
from robustloss.evaluation.passes import Arrays
from robustloss.evaluation.torch_scores import build_torch_score
from robustloss.models.classifier import AnyClassifier
from robustloss.results.records import validation_record
from robustloss.spec.prefixes import is_plugin


def find_target(attack: Attack) -> str | None:
    """Return the score whose torch form an attack needs; None for any other attack."""
    return getattr(attack, "score", None) if attack.needs == "score" else None


def can_attack(attack: Attack, folder: Path, *, density: bool, features: bool) -> bool:
    """Return whether a cell has what an attack aims at: else it is left out of that cell.

    Args:
        attack: The attack.
        folder: Where a relative path of the user's score is looked for first.
        density: Whether the loss's class_log_likelihood is a normalised log-density.
        features: Whether the model offers features.
    """
    score = find_target(attack)
    if score is None:
        return True
    if is_plugin(score):
        return score_plugins.find_torch_form(score, (folder,)) is not None
    return is_offered(score, density=density, features=features)


def build_view(
    attack: Attack, model: AnyClassifier, reference: Arrays, folder: Path, *, density: bool
) -> LikelihoodView:
    """Return the model with the detector that an attack may see.

    Args:
        attack: One that the cell has.
        model: The classifier.
        reference: Its arrays of clean images.
        folder: See `can_attack`.
        density: See `can_attack`.
    """
    name = find_target(attack)
    if name is None:
        return detector_view(model, reference)
    device, plugins = next(model.parameters()).device, score_plugins
    own = plugins.find_torch_form(name, (folder,)) if is_plugin(name) else None
    fit = FITS[name](reference) if name in FITS else {}
    if own and own.takes_reference:
        fit = reference
    loaded = plugins.load([name], reference, (folder,))
    array_form = build_scores([name], reference, density=density, plugins=loaded)[name]
    score = build_torch_score(name, fit, device, own.function if own else None)
    return score_view(model, reference, score, array_form(validation_record(reference)))
