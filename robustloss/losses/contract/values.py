"""Contract checks of the numbers that a loss returns.

A check takes a Subject and returns a remark or None. It raises ContractBrokenError with the reason
if the loss breaks this part of the contract. The first line of its docstring is what must hold.
"""

import torch
from torch import Tensor, nn

from robustloss.losses.base import (
    LossHead,
    check_class_vectors,
    check_logits,
    check_terms,
    count_tuples,
)
from robustloss.losses.contract.subject import (
    FEATURE_DIM,
    NUM_CLASSES,
    OUTPUTS,
    Subject,
    are_close,
    batch,
    require,
)
from robustloss.losses.contract.toy import error_on_blobs, train_on_blobs

TOY_STEPS, TOY_ERROR = 150, 0.10
POINTS = 400  # on each axis of the plane over which a density is integrated


def shapes(subject: Subject) -> None:
    """Two (B,) terms, (B,K) logits and likelihoods, also of a single image."""
    head, (features, labels) = subject.build_fitted(), batch()
    for rows in (features, features[:1]):
        for name in OUTPUTS:
            check_logits(getattr(head, name)(rows), rows, NUM_CLASSES, name)
    head = subject.build_started()
    for progress in (0.0, 0.5, 1.0):
        check_terms(head.loss(features, labels, progress=progress), features)
    if head.logits_while_training:
        check_terms(head.loss(features[:1], labels[:1], progress=0.0), features[:1])


def optional_methods(subject: Subject) -> None:
    """Class vectors, training logits, tuples and note are what the report can use."""
    features, labels = batch()
    for head in (subject.build_started(), subject.build_fitted()):
        check_class_vectors(head)
        count_tuples(head, features, labels)
        note: object = head.note()
        kind = type(note).__name__
        require(isinstance(note, str), f"note() returned {kind}. Return a sentence, or ''.")
        for progress in (0.0, 0.5, 1.0) if head.logits_while_training else ():
            logits = head.training_logits(features, labels, progress=progress)
            check_logits(logits, features, NUM_CLASSES, "training_logits")


def logits_before_fit(subject: Subject) -> None:
    """A pair loss refuses, any other loss has logits from the start."""
    head, (features, _) = subject.build_started(), batch()
    try:
        head.logits(features)
    except RuntimeError as error:
        require(
            not head.logits_while_training,
            f"logits() raised {error!r} before fit(), but training measures the error of a loss "
            "with batching = 'shuffled'. A pair loss has batching = 'balanced'.",
        )
        return
    require(
        head.logits_while_training,
        "batching = 'balanced' marks a pair loss, which has no logits before fit(): "
        "raise RuntimeError there instead of returning numbers that mean nothing.",
    )


def rows_stand_alone(subject: Subject) -> None:
    """An image's logits do not depend on the other images of the batch."""
    head, (features, _) = subject.build_fitted(), batch()
    for name in OUTPUTS:
        method = getattr(head, name)
        one_by_one = torch.cat([method(row) for row in features.split(1)])
        require(
            are_close(method(features), one_by_one),
            f"{name}() of a batch differs from that of its images one by one.",
        )


def finite_at_hostile_features(subject: Subject) -> None:
    """Values and gradients are numbers at zero, far away, at a center, and in bfloat16 steps."""
    started, fitted = subject.build_started(), subject.build_fitted()
    features, labels = batch()
    far = 1e4 * nn.functional.normalize(features)
    cases = [
        ("zero features", torch.zeros_like(features), labels),
        ("features of norm 1e4", far, labels),
        ("features of norm 1e4, all of one class", far, torch.zeros_like(labels)),
        ("equal features", features[:1].repeat(len(labels), 1), labels),
        ("features rounded to bfloat16", features.bfloat16().float(), labels),
    ]
    for head in (started, fitted):  # by the same names, with other values
        for name, value in head.state_dict().items():
            if _is_class_vectors(value):
                cases.append((f"features equal to {name}[label]", value[labels], labels))
    for case in cases:
        _require_finite(started, fitted, *case)
    # Exactly at distance 0 and at cosine 1 and -1, where roots and arc cosines have no slope.
    rows = torch.eye(NUM_CLASSES, FEATURE_DIM)
    rows[FEATURE_DIM:, 0] = -1.0
    for head in (started, fitted):
        state = head.state_dict()
        head.load_state_dict({n: rows if _is_class_vectors(v) else v for n, v in state.items()})
    for side, sign in (("on", 1.0), ("opposite to", -1.0)):
        name = f"features {side} unit class vectors"
        _require_finite(started, fitted, name, sign * rows[labels], labels)


def posterior(subject: Subject) -> None:
    """The softmax of the logits is a distribution, and the logits are not one already."""
    head, (features, _) = subject.build_fitted(), batch()
    logits = head.logits(features)
    total = logits.softmax(1).sum(1)
    ones = torch.ones_like(total)
    require(are_close(total, ones), "softmax of logits() does not sum to 1.")
    looks_normalised = bool((logits >= 0).all()) and are_close(logits.sum(1), ones)
    require(not looks_normalised, "logits() are probabilities. Return them before the softmax.")


def normalised_density(subject: Subject) -> str | None:
    """With density = True, exp(class_log_likelihood) integrates to 1 over the plane."""
    if not subject.head_class.density:
        return "not claimed: density is False"
    torch.manual_seed(0)
    head = subject.build(feature_dim=2, num_classes=3)
    head.start(torch.tensor([20, 30, 50]))
    head.eval()
    before = torch.zeros(3)
    for half_width in (4.0, 8.0, 16.0, 32.0, 64.0):
        # Steps grow with the width, so what two widths agree on is the whole mass, resolved.
        step = 2.0 * half_width / POINTS
        axis = torch.arange(POINTS) * step - half_width + 0.5 * step
        with torch.no_grad():
            log_density = head.class_log_likelihood(torch.cartesian_prod(axis, axis))
        total = log_density.double().exp().sum(0) * step**2
        settled = bool(((total - before).abs() < 0.01 * before).all())
        if settled:
            break
        grows, before = bool((total > 1.5 * before).any()), total
    off = (total - 1.0).abs() > 0.02 if settled else (total > 1.02) & grows
    require(
        not bool(off.any()),
        f"exp(class_log_likelihood) integrates to {[round(v, 3) for v in total.tolist()]}, "
        "not to 1 for each class. Mend the constant, or set density = False.",
    )
    return None if settled else "not judged: the integral did not settle"


def gradient_reaches_features(subject: Subject) -> None:
    """Loss, logits and likelihood are connected to the features."""
    features, labels = batch()
    features.requires_grad_()
    terms = subject.build_started().loss(features, labels, progress=0.5)
    fitted = subject.build_fitted()
    for name, values in (
        ("loss()", terms.classification + terms.regulariser),
        ("logits()", fitted.logits(features)),
        ("class_log_likelihood()", fitted.class_log_likelihood(features)),
    ):
        connected = values.requires_grad and (
            torch.autograd.grad(values.sum(), features, allow_unused=True)[0] is not None
        )
        require(connected, f"{name} is not connected to the features: look for detach or no_grad.")


def learns(subject: Subject) -> str:
    """Three blobs in the plane are learned through a linear layer."""
    torch.manual_seed(0)
    head = subject.build(feature_dim=2, num_classes=3)
    layer, losses = train_on_blobs(head, TOY_STEPS)
    bad = torch.nonzero(~losses.isfinite())
    require(not len(bad), f"the loss is no number at step {bad[0].item() if len(bad) else ''}.")
    error = error_on_blobs(head, layer)
    require(
        error < TOY_ERROR,
        f"error {100 * error:.0f} % after {TOY_STEPS} steps on three separate blobs; "
        f"expected under {100 * TOY_ERROR:.0f} %.",
    )
    return f"error {100 * error:.0f} %"


def _is_class_vectors(value: Tensor) -> bool:
    return tuple(value.shape) == (NUM_CLASSES, FEATURE_DIM) and value.is_floating_point()


def _require_finite(
    started: LossHead, fitted: LossHead, case: str, features: Tensor, labels: Tensor
) -> None:
    features = features.detach().clone().requires_grad_()
    for progress in (0.0, 0.5, 1.0):
        terms = started.loss(features, labels, progress=progress)
        total = terms.classification + terms.regulariser
        _require_finite_with_gradient(total, features, started, f"loss() at {case}")
    for name in OUTPUTS:
        values = getattr(fitted, name)(features)
        _require_finite_with_gradient(values, features, fitted, f"{name}() at {case}")


def _require_finite_with_gradient(
    values: Tensor, features: Tensor, head: LossHead, what: str
) -> None:
    require(bool(values.isfinite().all()), f"{what} is not finite.")
    if not values.requires_grad:
        return  # another check looks for the connection
    trained = {name: p for name, p in head.named_parameters() if p.requires_grad}
    sources = {"the features": features, **trained}
    grads = torch.autograd.grad(values.sum(), list(sources.values()), allow_unused=True)
    for name, grad in zip(sources, grads, strict=True):
        finite = grad is None or bool(grad.isfinite().all())
        require(finite, f"the gradient of {what} to {name} is not finite.")
