"""Models from elsewhere: loaded, tried once, and shown to the rest as a classifier is.

Shape suffixes: B batch, K classes, D feature.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustloss.attacks.plugins import load_object
from robustloss.models.factories import call_factory
from robustloss.models.weight_files import tensor_digest

VERSION = 2  # raise when the same module would give other outputs
WEIGHTS_VERSION = 1  # raise when a file of weights would give a network of ours other outputs
IN_MEMORY = "memory:model"  # stands for the factory of a model that no file holds
NOTE = "given, not trained here"
_RANDOM = "random"  # stands for the answers of a model that differ from call to call
_TRIED = 4  # random images that a model is tried with
_ASKED = 8  # images whose answers stand for a model


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
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        head: GivenHead,
        normalize: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = head
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
        return self.model(self.prepare(images)).float()

    def prepare(self, images: Tensor) -> Tensor:
        """Return a new tensor (B,C,H,W) of what the module gets for images in [0,1]."""
        if self.mean is None or self.std is None:
            return images.clone()
        return (images - self.mean) / self.std

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
            logits = model(self.prepare(images))
            likelihood = model.class_log_likelihood(self.prepare(images))
        else:
            logits = likelihood = model(self.prepare(images))
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
        return copy_module(found)
    return call_factory(name, found, params)


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
    normalize: Mapping[str, Sequence[float]] | None = None,
) -> GivenModel:
    """Pass some random images through a module and wrap it with what it offers.

    Args:
        module: Set to eval mode.
        image_shape: (C, H, W).
        num_classes: K that it must return; None for whatever it returns.
        features: Use its features, if it offers some.
        normalize: See `GivenModel`.

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
    _check_normalize(module, normalize, image_shape[0])
    wrapped = GivenModel(module, GivenHead(0, 0, False), normalize).eval()
    some = torch.rand((_TRIED, *image_shape), generator=torch.Generator().manual_seed(0))
    parameter = next(iter((*module.parameters(), *module.buffers())), some)
    some = some.to(parameter.device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            logits = module(wrapped.prepare(some))
        except Exception as error:
            first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            channels, height, width = some.shape[1:]
            raise ValueError(
                f"the model fails on images of shape {tuple(some.shape)} in [0, 1]: "
                f"{type(error).__name__}: {first}. They have {channels} "
                f"channel{'s' if channels > 1 else ''} and {height}x{width} pixels; wrap the model "
                f"so that it takes them.{_hint_batch(module, wrapped.prepare(some))}"
            ) from error
        _check_logits(logits, num_classes)
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
    return wrapped


def _check_normalize(
    module: nn.Module, normalize: Mapping[str, Sequence[float]] | None, channels: int
) -> None:
    """Refuse a normalisation of other images, and a second one."""
    if normalize is None:
        return
    mean = list(normalize["mean"])
    if len(mean) != channels:
        raise ValueError(
            f"normalize.mean (={mean}) must have one number for each channel of the images, "
            f"{channels}. A model that makes other channels of them is to normalise them itself."
        )
    if isinstance(getattr(module, "mean", None), Tensor) and hasattr(module, "std"):
        raise ValueError(
            f"normalize: the model (={type(module).__name__}) has a mean and a std of its own, so "
            "images would be normalised twice. Leave normalize out; if the model does not use "
            "them, take them out of it."
        )


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


def digest_answers(model: Any, image_shape: Sequence[int]) -> str:
    """Return a digest of all that a model says of a few fixed images, bit for bit.

    Tensors alone do not decide what code of somebody else's answers: that may read a plain
    attribute, a buffer that is not stored, or a file.

    Args:
        model: A classifier, or a given model that is wrapped.
        image_shape: (C, H, W).

    Returns:
        The digest; the same text for every model that gives other answers each time.
    """
    # Few levels of grey, so that simple networks answer the same on every machine.
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 5, (_ASKED, *image_shape), generator=generator) / 4
    images[0], images[1] = 0.0, 1.0
    tensors = (*model.parameters(), *model.buffers())
    images = images.to(tensors[0].device if tensors else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order in which floats are added must not depend on the executor
    try:
        found = []
        for _ in range(2):  # twice under one seed: what then differs draws numbers of its own
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.default_generator.manual_seed(0)
                answers = model.outputs(images)
            named = zip(("features", "logits", "likelihood"), answers, strict=True)
            found.append({name: value for name, value in named if value is not None})
    finally:
        torch.set_num_threads(threads)
    return (
        tensor_digest(found[0]) if tensor_digest(found[0]) == tensor_digest(found[1]) else _RANDOM
    )


def _check_logits(logits: object, num_classes: int | None) -> None:
    wanted = f"(B, K) = ({_TRIED}, {num_classes if num_classes else 'classes'})"
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model must return one tensor of logits {wanted}, got {type(logits).__name__}. "
            "Wrap it so that it returns the logits alone."
        )
    good = logits.ndim == 2 and logits.shape[0] == _TRIED and logits.shape[1] >= 2
    if not good or num_classes not in (None, logits.shape[1]):
        raise ValueError(
            f"the model must return logits of shape {wanted}, got {tuple(logits.shape)}. Give it "
            "one output for each class."
        )
    if not logits.is_floating_point() or not bool(torch.isfinite(logits).all()):
        raise ValueError(
            f"the model returned {logits.dtype} with NaN or infinite values, or no real numbers, "
            "for images in [0, 1]; logits must be finite and floating."
        )
    total = logits.double().sum(1)
    if bool(((logits >= 0) & (logits <= 1)).all()) and bool(((total - 1).abs() < 1e-3).all()):
        raise ValueError(
            "the model returns probabilities (in [0, 1], with sum 1), but must return logits: the "
            "softmax of an attack would flatten their gradient. Leave out its last softmax, or "
            "return the logarithm."
        )


def _count_features(module: nn.Module, images: Tensor) -> int:
    """Return D of the features that a module offers; 0 for none, or for maps, as in torchvision."""
    if not callable(getattr(module, "features", None)):
        return 0
    try:
        found = cast(Any, module).features(images.clone())
    except (RuntimeError, TypeError, ValueError):
        return 0
    fits = isinstance(found, Tensor) and found.ndim == 2 and len(found) == len(images)
    return int(found.shape[1]) if fits else 0
