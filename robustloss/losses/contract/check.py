"""Check that a loss keeps its contract: what check_estimator is to scikit-learn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from robustloss.attacks.plugins import check_parameters
from robustloss.losses import check_head_class, find_loss
from robustloss.losses.base import LossHead
from robustloss.losses.contract import state, values
from robustloss.losses.contract.subject import ContractBrokenError, Subject
from robustloss.losses.feasibility import collecting_warnings

Contract = Callable[[Subject], str | None]

CHECKS: Mapping[str, Contract] = {
    "shapes": values.shapes,
    "optional methods": values.optional_methods,
    "logits before fit": values.logits_before_fit,
    "each image on its own": values.rows_stand_alone,
    "finite at hostile features": values.finite_at_hostile_features,
    "posterior sums to one": values.posterior,
    "density integrates to one": values.normalised_density,
    "label-free logits": state.label_free,
    "permutation of classes": state.permutation,
    "gradient reaches features": values.gradient_reaches_features,
    "parameter groups": state.parameter_groups,
    "device move": state.device_move,
    "save and load": state.save_and_load,
    "learns a toy problem": values.learns,
}
"""In the order in which they run, after "builds"."""


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes:
        name: what was checked.
        passed: whether the loss keeps this part of the contract.
        detail: the reason of a failure; for a passed check a remark or nothing.
        follows: the earlier failed check that this one fails with: mended together, or not judged
            before that one passes.
    """

    name: str
    passed: bool
    detail: str = ""
    follows: str = ""


def check_loss(
    loss: str | type[LossHead], *, folders: Sequence[Path] = (), **params: object
) -> list[Check]:
    """Check that a loss keeps the contract of LossHead.

    A check never raises: an exception inside the loss is a failed check with its reason. The
    global random state is left as it was.

    Args:
        loss: a name as for `build_loss`, or the class itself.
        folders: where a relative path of a plug-in file is looked for.
        **params: the loss's own keyword parameters.

    Returns:
        One entry per check; only "builds" if the loss cannot be built.

    Raises:
        ValueError: if the name or a parameter is unknown, or it is no complete loss head.
    """
    if isinstance(loss, str):
        name, kind = loss, find_loss(loss, folders)
    else:
        name, kind = loss.__name__, check_head_class(loss, loss.__name__)
    check_parameters(kind, params, name, given=("feature_dim", "num_classes"))
    subject = Subject(kind, params)
    first = _run("builds", state.builds, subject)
    if not first.passed:
        return [first]
    found = [first]
    with collecting_warnings():  # of the toy dimensions; "builds" has reported them
        for title, check in CHECKS.items():
            found.append(_run(title, check, subject, found))
    return found


def _run(name: str, check: Contract, subject: Subject, earlier: Sequence[Check] = ()) -> Check:
    """Run a check; one that fails for the reason of an earlier one says of which.

    Where the outputs have wrong shapes or types, nearly everything that uses them raises something,
    which tells no more.
    """
    failed = {each.detail: each.follows or each.name for each in earlier if not each.passed}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            return Check(name, True, check(subject) or "")
        except ContractBrokenError as broken:
            return Check(name, False, str(broken), failed.get(str(broken), ""))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plug-in may raise anything; that is the result
            try:
                reason = " ".join(str(error).split())[:400]
            except Exception:
                reason = "its text cannot be made"
            detail = f"{type(error).__name__}: {reason}"
            shapes = "shapes" if "shapes" in failed.values() else ""
            return Check(name, False, detail, failed.get(detail, shapes))
