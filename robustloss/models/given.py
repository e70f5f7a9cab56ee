"""Models from elsewhere: loaded, tried once, and shown to the rest as a classifier is.

Shape suffixes: B batch, K classes, D feature.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustloss.attacks.plugins import load_object
from robustloss.models.factories import call_factory
from robustloss.models.normalization import (
    Stated,
    find_stated,
    remark_on_normalization,
    settle_normalization,
)
from robustloss.models.outputs import check_logits, take_logits
from robustloss.spec.losses import Normalization

VERSION = 2  # raise when the same module would give other outputs
WEIGHTS_VERSION = 1  # raise when a file of weights would give a network of ours other outputs
IN_MEMORY = "memory:model"  # stands for the factory of a model that no file holds
NOTE = "given, not trained here"
_TRIED = 4  # random images that a model is tried with


@dataclass(frozen=True)
class GivenHead:
    """What is known of a given model's outputs; it has no layer of its own to ask.

    Attributes:
        num_classes: K.
        feature_dim: D, 0 where the model offers no features.
        density: its class_log_likelihood is a normalised log-density.
    """

    num_classes: int
    feature_dim: int
    density: bool


class GivenModel(nn.Module):
    """Any module that maps images in [0,1] to logits, behind the interface of a `Classifier`.

    Of the module's own offers it uses ``features(images)`` (B,D), and ``joint(images)``, a pair of
    logits and class log-likelihoods, or ``class_log_likelihood(images)``. Without, there are no
    features, and the likelihoods are the logits, as for a plain softmax.

    Every call gets images of its own, because a module may change them in place.

    Args:
        model: The module, in eval mode.
        head: What it offers, as `wrap_given` found.
        normalize: "mean" and "std", (C,) each: the module gets (images - mean) / std, features,
            joint and likelihood of it too. None where it gets images in [0,1].
        dtype: In which the module wants its images; None for float32.

    Attributes:
        no_gradient: Why no gradient comes back to the images; "" where one does.
        remarks: What a reader must know of the model.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        head: GivenHead,
        normalize: Mapping[str, Sequence[float]] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.dtype = dtype
        self.no_gradient = ""
        self.remarks: tuple[str, ...] = ()
        tensor = next(iter((*model.parameters(), *model.buffers())), torch.empty(0))
        for name in ("mean", "std"):
            values = None
            if normalize is not None:
                values = torch.tensor(normalize[name], dtype=torch.float32, device=tensor.device)
                values = values.view(-1, 1, 1)
            # Not in the state dict: files of weights hold the module's own tensors.
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [0,1] to logits (B,K)."""
        return self.ask(images).float()

    def ask(self, images: Tensor) -> Tensor:
        """Return the logits (B,K) as the module itself gives them.

        Raises:
            ValueError: Its output has none.
        """
        logits, _ = take_logits(self.model(self.prepare(images)))
        if logits is None:
            raise ValueError("the model returned no logits this time, and did before.")
        return logits

    def prepare(self, images: Tensor) -> Tensor:
        """Return a new tensor (B,C,H,W) of what the module gets for images in [0,1]."""
        if self.mean is not None and self.std is not None:
            images = (images - self.mean) / self.std
        elif self.dtype is None or self.dtype == images.dtype:
            return images.clone()
        return images if self.dtype is None else images.to(self.dtype)

    def features(self, images: Tensor) -> Tensor:
        """Map images to features (B,D).

        Raises:
            ValueError: The model offers none.
        """
        if not self.head.feature_dim:
            raise ValueError("the given model offers no features(images), which this needs.")
        return cast(Any, self.model).features(self.prepare(images)).float()

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B,K) and class log-likelihoods (B,K), in nats, in one graph."""
        model = cast(Any, self.model)
        if callable(getattr(model, "joint", None)):
            logits, likelihood = model.joint(self.prepare(images))
        elif callable(getattr(model, "class_log_likelihood", None)):
            logits = self.ask(images)
            likelihood = model.class_log_likelihood(self.prepare(images))
        else:
            logits = likelihood = self.ask(images)
        return logits.float(), likelihood.float()

    def outputs(self, images: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return features (B,D) or None, logits (B,K) and class log-likelihoods (B,K)."""
        features = self.features(images) if self.head.feature_dim else None
        return features, *self.joint(images)


def build_given(name: str, params: Mapping[str, Any], folders: Sequence[Path] = ()) -> nn.Module:
    """Make the module that a spec's ``model = "package.module:factory"`` names.

    Args:
        name: A function or class that returns a module, or a module itself (which is copied).
        params: The factory's parameters.
        folders: Where a ``file.py`` is looked for, before the working directory.

    Raises:
        ValueError: It cannot be built or is no module (PluginError: cannot be imported).
    """
    found = load_object(name, folders)
    if isinstance(found, nn.Module):
        if params:
            raise ValueError(f"{name} is a module already and takes no params.")
        return unwrap_compiled(copy_module(found))
    return unwrap_compiled(call_factory(name, found, params))


def unwrap_compiled(module: nn.Module) -> nn.Module:
    """Return the module inside one that torch.compile returned; any other as it is.

    It is the same function, and an attack asks it with batches of many sizes: for each of them a
    compiled one is compiled anew, which takes longer than the attack.
    """
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


def copy_module(module: nn.Module) -> nn.Module:
    """Return a copy of a module, also of one that copy.deepcopy refuses as it is.

    Results of a computation that it keeps as attributes are copied as plain tensors. What cannot be
    copied at all, as a lock, is shared.

    Raises:
        ValueError: It cannot be copied.
    """
    # Without gradients: parameters of TorchScript would come out as results of a computation.
    with suppress(Exception), torch.no_grad():
        return copy.deepcopy(module)
    own = {id(part): part for part in module.modules()}
    known: dict[int, Any] = {}  # what deepcopy is to take for copied already
    for part in module.modules():
        kept = {id(part._parameters), id(part._buffers), id(part._modules)}
        for value in (*vars(part).values(), *part._buffers.values()):
            if isinstance(value, Tensor):
                known[id(value)] = value.detach().clone()
            elif id(value) not in kept and not _can_copy(value, own):
                known[id(value)] = value
    try:
        with torch.no_grad():
            return copy.deepcopy(module, known)
    except Exception as error:
        raise ValueError(
            f"the model (={type(module).__name__}) cannot be copied, and the evaluation must not "
            f"change it: {type(error).__name__}: {error}. Take out what copy.deepcopy refuses, or "
            'name a function that builds the model in a spec, model = "file.py:factory".'
        ) from error


def _can_copy(value: object, modules: Mapping[int, nn.Module]) -> bool:
    """Return whether copy.deepcopy takes a value, apart from the modules that it refers to."""
    try:
        copy.deepcopy(value, dict(modules))
    except Exception:
        return False
    return True


def _set_eval(module: nn.Module) -> None:
    """Put a module into eval mode; an exported program refuses that, and has no other mode."""
    try:
        module.eval()
    except NotImplementedError:
        for part in module.modules():
            for name in ("train", "eval"):
                vars(part).pop(name, None)  # torch.export puts functions there that raise
        module.eval()


def wrap_given(
    module: nn.Module,
    image_shape: Sequence[int],
    num_classes: int | None = None,
    *,
    features: bool = True,
    normalize: Normalization | None = None,
    stated: Stated | None = None,
    remarks: Sequence[str] = (),
) -> GivenModel:
    """Pass some random images through a module and wrap it with what it offers.

    Args:
        module: Set to eval mode.
        image_shape: (C, H, W).
        num_classes: K that it must return; None for whatever it returns.
        features: Use its features, if it offers some.
        normalize: Mean and std, see `GivenModel`; or "weights" for those that it says itself.
        stated: What is known to be said of its normalisation; None to ask the module.
        remarks: What a reader must know of it already.

    Raises:
        ValueError: It fails on such images, or returns no finite logits (B,K), or probabilities.
    """
    _set_eval(module)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_meta:
            raise ValueError(
                f"{name} of the model is a tensor without values (on the device 'meta'). Load the "
                "weights, or call model.to_empty(device=...) and set all values."
            )
    stated = stated or find_stated(module)
    known = settle_normalization(module, normalize, stated, image_shape[0])
    some = torch.rand((_TRIED, *image_shape), generator=torch.Generator().manual_seed(0))
    parameter = next(iter((*module.parameters(), *module.buffers())), some)
    some = some.to(parameter.device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        wrapped, output = _try_images(module, some, known)
        logits, how = check_logits(output, _TRIED, num_classes)
        dim = _count_features(module, wrapped.prepare(some)) if features else 0
        owner = module if hasattr(module, "density") else getattr(module, "head", None)
        density = getattr(owner, "density", False) is True
        wrapped.head = GivenHead(logits.shape[1], dim, density)
        said, likelihood = _ask_joint(wrapped, some)
        if likelihood.shape != logits.shape:
            raise ValueError(
                f"class log-likelihoods (shape {tuple(likelihood.shape)}) must have the shape of "
                f"the logits, (B, K) = {tuple(logits.shape)}."
            )
        _check_agreement(wrapped, some, said)
        wrapped.no_gradient, still = _find_gradient(wrapped, some)
    found = [
        *remarks,
        how,
        remark_on_normalization(normalize, stated),
        f"it computes in {str(wrapped.dtype).removeprefix('torch.')}" if wrapped.dtype else "",
        "no gradient comes back to the images, so black-box attacks only"
        if wrapped.no_gradient
        else "",
        "its gradient at random images is exactly 0, as behind a rounding: attacks that follow it "
        "stand still, and square needs none"
        if still
        else "",
    ]
    wrapped.remarks = tuple(filter(None, found))
    return wrapped


def _try_images(
    module: nn.Module, images: Tensor, normalize: Mapping[str, Sequence[float]] | None
) -> tuple[GivenModel, object]:
    """Show a module some images, in its own type of numbers if it takes no other.

    Returns:
        It wrapped, without a word on what it offers, and what it returned.
    """
    floats = {each.dtype for each in (*module.parameters(), *module.buffers())
              if each.is_floating_point()}  # fmt: skip
    errors: list[Exception] = []
    for dtype in (None, *(floats - {torch.float32} if len(floats) == 1 else ())):
        wrapped = GivenModel(module, GivenHead(0, 0, False), normalize, dtype).eval()
        try:
            return wrapped, module(wrapped.prepare(images))
        except Exception as error:
            errors.append(error)
    failure = errors[0]
    first = (str(failure).strip() or type(failure).__name__).splitlines()[0].rstrip(".")
    channels, height, width = images.shape[1:]
    raise ValueError(
        f"the model fails on images of shape {tuple(images.shape)} in [0, 1]: "
        f"{type(failure).__name__}: {first}. They have {channels} "
        f"channel{'s' if channels > 1 else ''} and {height}x{width} pixels; wrap the model so that "
        f"it takes them.{_hint_call(module)}{_hint_batch(module, wrapped.prepare(images))}"
    ) from failure


def _find_gradient(model: GivenModel, images: Tensor) -> tuple[str, bool]:
    """Look whether a gradient of the logits comes back to the images.

    Returns:
        Why none does, "" where one does; and whether it is exactly 0.
    """
    with torch.enable_grad():
        point = images.clone().requires_grad_()
        try:
            logits = model(point)
            if logits.requires_grad:
                # Not of their plain sum, which is constant for logits that are centred.
                uneven = torch.arange(1.0, logits.shape[1] + 1, device=logits.device)
                total = (logits * uneven).sum()
                (gradient,) = torch.autograd.grad(total, point, allow_unused=True)
                if gradient is not None:
                    return "", not bool(gradient.any())
        except Exception as error:  # as layers without a derivative raise it
            first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            return f"{type(error).__name__}: {first:.200}", False
    return "a quantised layer, a detach or no_grad is in its way", False


def _hint_call(module: nn.Module) -> str:
    """Return what a module says of its call and of the images that it was made for, or ""."""
    hints = []
    with suppress(TypeError, ValueError):  # of a module without a signature
        parameters = [*inspect.signature(module.forward).parameters.values()]
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        needed = [p.name for p in parameters[1:] if p.default is p.empty and p.kind in kinds]
        if needed:
            hints.append(f" Its forward also needs {', '.join(needed)}: the wrapper must give it.")
    config, size = getattr(module, "config", None), getattr(module, "pretrained_cfg", None)
    if isinstance(size, Mapping) and isinstance(size.get("input_size"), tuple | list):
        hints.append(
            f" timm made it for images of {tuple(size['input_size'])}; for others it takes "
            "in_chans, and many models img_size, when it is built."
        )
    elif config is not None and hasattr(config, "num_channels"):
        pixels = getattr(config, "image_size", None)
        hints.append(
            f" Its configuration says num_channels {config.num_channels}"
            + (f" and image_size {pixels}." if pixels else ".")
        )
    return "".join(hints)


def _hint_batch(module: nn.Module, images: Tensor) -> str:
    """Return a remark on the batch where a module takes fewer or more images, and "" otherwise."""
    for size in (1, 2, 8, 16, 32, 64, 128):
        try:
            module(images[:1].expand(size, -1, -1, -1).clone())
        except Exception:
            continue
        return (
            f" It takes {size} images at a time: export or trace it for a batch of any size, with "
            'dynamic_shapes={"x": {0: torch.export.Dim("batch")}} for torch.export.'
        )
    return ""


def _ask_joint(model: GivenModel, images: Tensor) -> tuple[Tensor, Tensor]:
    try:
        return model.joint(images)
    except Exception as error:
        raise ValueError(
            f"joint(images), or class_log_likelihood(images), of the model fails: "
            f"{type(error).__name__}: {error}. It must give (B, K) each; take it out if it is for "
            "something else."
        ) from error


def _check_agreement(model: GivenModel, images: Tensor, joint_logits: Tensor) -> None:
    """Refuse offers that belong to another model than `forward`."""
    logits, again = model(images), model(images)
    if not torch.equal(logits, again):
        return  # it draws random numbers, and no two of its answers agree
    scale = float(logits.abs().amax())
    if joint_logits.shape != logits.shape or not torch.allclose(
        joint_logits, logits, rtol=1e-3, atol=1e-4 * scale
    ):
        raise ValueError(
            "joint(images) gives other logits than the model itself: it must return the logits of "
            "forward(images), and the class log-likelihoods beside them."
        )
    if not model.head.feature_dim:
        return
    features = model.features(images)
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features(images) are NaN or infinite for images in [0, 1].")
    # Logits are a function of the features: where these are the same, those must be.
    same = (features[:, None] == features).all(2)
    apart = (logits[:, None] - logits).abs().amax(2) > 1e-3 * scale
    if bool((same & apart).any()):
        raise ValueError(
            "features(images) are the same for images with other logits: they must be what the "
            "logits are computed from. Take features out if it is for something else."
        )


def _count_features(module: nn.Module, images: Tensor) -> int:
    """Return D of the features that a module offers; 0 for none, or for maps, as in torchvision."""
    if not callable(getattr(module, "features", None)):
        return 0
    try:
        found = cast(Any, module).features(images.clone())
    except Exception:  # it is for something else
        return 0
    fits = isinstance(found, Tensor) and found.ndim == 2 and len(found) == len(images)
    return int(found.shape[1]) if fits else 0
