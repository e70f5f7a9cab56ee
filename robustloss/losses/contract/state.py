"""Contract checks of a loss as a module: state, parameters, devices, files.

A check takes a Subject and returns a remark or None. It raises ContractBrokenError with the reason
if the loss breaks this part of the contract. The first line of its docstring is what must hold.
"""

import copy
import io
from collections.abc import Iterator

import torch
from torch import Tensor

from robustloss.losses.base import LossHead
from robustloss.losses.contract.subject import (
    FEATURE_DIM,
    NUM_CLASSES,
    OUTPUTS,
    ContractBrokenError,
    Subject,
    are_close,
    batch,
    require,
)
from robustloss.losses.contract.toy import train_on_blobs
from robustloss.losses.feasibility import collecting_warnings


def builds(subject: Subject) -> str | None:
    """The constructor runs and passes the dimensions on to LossHead; warnings are the remark."""
    with collecting_warnings() as remarks:
        head = subject.build_started()
    dims = (getattr(head, "feature_dim", None), getattr(head, "num_classes", None))
    require(
        dims == (FEATURE_DIM, NUM_CLASSES),
        f"feature_dim and num_classes are {dims}, not {(FEATURE_DIM, NUM_CLASSES)}. "
        "Call super().__init__(feature_dim, num_classes).",
    )
    return "; ".join(remarks) or None


def label_free(subject: Subject) -> None:
    """loss() has no side effect, and labels never reach the logits."""
    head, (features, labels) = subject.build_started(), batch()
    features_before, labels_before = features.clone(), labels.clone()
    state_before = copy.deepcopy(head.state_dict())
    head.loss(features, labels, progress=0.5)
    require(torch.equal(features, features_before), "loss() changed the features in place.")
    require(torch.equal(labels, labels_before), "loss() changed the labels in place.")
    for name, value in head.state_dict().items():
        require(
            torch.equal(value, state_before[name]),
            f"loss() changed '{name}'. Move it in after_step().",
        )
    grads = [name for name, p in head.named_parameters() if p.grad is not None]
    require(not grads, f"loss() left gradients in {grads}: backward is the trainer's.")
    first, second = (_loss_rows(head, features, labels) for _ in range(2))
    require(
        torch.equal(first.nan_to_num(), second.nan_to_num()),  # another check looks for NaN
        "loss() gives another value when it is called again. Schedules follow `progress`.",
    )
    head = subject.build_fitted()
    seen = []
    for shift in (0, 1):
        head.loss(features, (labels + shift) % NUM_CLASSES, progress=0.5)
        seen.append(torch.cat([head.logits(features), head.class_log_likelihood(features)]))
    require(torch.equal(*seen), "logits() depend on the labels of the last loss().")


def _loss_rows(head: LossHead, features: Tensor, labels: Tensor) -> Tensor:
    torch.manual_seed(0)  # a loss that draws pairs at random draws the same ones
    return torch.stack(head.loss(features, labels, progress=0.5))


def permutation(subject: Subject) -> str | None:
    """Classes have names, not ranks.

    Renaming the classes everywhere (the class axis of every parameter and buffer, and the labels)
    must leave each image's loss as it is and reorder its logits.
    """
    features, labels = batch()
    renamed = torch.randperm(NUM_CLASSES, generator=torch.Generator().manual_seed(0))
    broken = []
    head = subject.build_started()
    before = _loss_rows(head, features, labels)
    if not are_close(before, _loss_rows(_rename_classes(head, renamed), features, renamed[labels])):
        broken.append("loss()")
    head = subject.build_fitted()
    twin = _rename_classes(head, renamed)
    for name in OUTPUTS:
        if not are_close(getattr(head, name)(features), getattr(twin, name)(features)[:, renamed]):
            broken.append(f"{name}()")
    for name, value in head.state_dict().items():
        if broken and any(s > NUM_CLASSES and s % NUM_CLASSES == 0 for s in value.shape):
            return f"not judged: give the classes an axis of their own in '{name}', as (K, ...)"
    require(
        not broken,
        f"{' and '.join(broken)} changed when the classes were renamed in every parameter and "
        "buffer. Is a class index used as a number, or are class values kept outside buffers?",
    )
    return None


def _rename_classes(head: LossHead, renamed: Tensor) -> LossHead:
    twin = copy.deepcopy(head)
    old_of_new = renamed.argsort()
    state = twin.state_dict()
    for name, value in state.items():
        for axis, size in enumerate(value.shape):
            if size == NUM_CLASSES:
                value = value.index_select(axis, old_of_new)
        state[name] = value
    twin.load_state_dict(state)
    return twin


def parameter_groups(subject: Subject) -> None:
    """Every trainable parameter stands in exactly one optimizer group."""
    head = subject.build_started()
    groups = head.parameter_groups(0.1)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    for name, parameter in head.named_parameters():
        count = listed.count(id(parameter))
        reason = f"'{name}' stands in {count} groups of parameter_groups(), not in one."
        require(count == 1 or not parameter.requires_grad, reason)
    for group in groups:
        if group["params"]:
            torch.optim.SGD([dict(group)], lr=0.1)


def device_move(subject: Subject) -> str | None:
    """Everything the loss needs moves with `.to(device)`."""
    for name, module in subject.build_fitted().named_modules():
        for key, value in vars(module).items():
            registered = key in ("_parameters", "_buffers", "_modules")
            plain = not registered and any(isinstance(v, Tensor) for v in _flatten(value))
            path = f"{name}.{key}" if name else key
            require(not plain, f"'{path}' is a plain tensor. Use register_buffer.")
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        assert device is not None
        _compare_devices(subject, device)
        return f"on {device}"
    # The meta device computes shapes only, but refuses most operations that mix it with the CPU.
    features, labels = (value.to("meta") for value in batch())
    for name, call in (
        ("loss()", lambda head: head.loss(features, labels, progress=0.5).classification),
        ("logits()", lambda head: head.logits(features)),
    ):
        head = subject.build_fitted().to("meta")
        try:
            device = call(head).device
        except (RuntimeError, NotImplementedError) as error:
            # Mining pairs needs values, which meta has not: that says nothing about the move.
            if "expected device" not in str(error) and "same device" not in str(error):
                continue
            raise
        require(device.type == "meta", f"{name} stays on the CPU when the head has moved.")
    return "on the meta device: no accelerator here"


def _flatten(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _flatten(item)
    else:
        yield value


def _compare_devices(subject: Subject, device: torch.device) -> None:
    features, labels = batch()
    for head in (subject.build_started(), subject.build_fitted()):
        moved = copy.deepcopy(head).to(device)
        there = features.to(device), labels.to(device)
        here = _loss_rows(head, features, labels)
        require(
            torch.allclose(here, _loss_rows(moved, *there).cpu(), rtol=1e-3, atol=1e-4),
            f"loss() on {device} differs from that on the CPU.",
        )
        with torch.no_grad():
            moved.after_step(*there)
            moved.start((torch.arange(NUM_CLASSES) + 20).to(device))
            moved.fit(*there)
        moved.logits(there[0])


def save_and_load(subject: Subject) -> None:
    """A trained head's state goes into a new head and gives the same logits."""
    torch.manual_seed(0)
    head = subject.build(feature_dim=2, num_classes=3)
    layer, _ = train_on_blobs(head, steps=5)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    copied = subject.build(feature_dim=2, num_classes=3)
    copied.load_state_dict(torch.load(file, weights_only=True))
    copied.eval()
    features = layer(torch.randn(20, 2)).detach()
    for name in OUTPUTS:
        expected = getattr(head, name)(features)
        try:
            found = getattr(copied, name)(features)
        except RuntimeError as error:
            raise ContractBrokenError(
                f"{name}() raised {error!r} after load_state_dict(). Register all that fit() and "
                "after_step() set as buffers, a note that fit() has run too."
            ) from error
        require(
            torch.equal(expected, found),
            f"{name}() differ after load_state_dict(). Register what they need as buffers.",
        )
