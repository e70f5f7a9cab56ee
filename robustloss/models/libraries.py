"""Whole models by the name that their library has for them: torchvision, timm, transformers."""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from robustloss.attacks.plugins import did_you_mean
from robustloss.data.files import TIMEOUT_S
from robustloss.models.factories import call_factory
from robustloss.models.normalization import Stated, read_preset
from robustloss.spec.prefixes import WEIGHT_FILES

DEFAULT = "DEFAULT"  # weights that the library recommends
# Parameters of timm by which a file is read, in some versions as a pickle.
_FILES_OF_TIMM = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
_REMEDY = f"Name one of these, or a file that ends in {', '.join(WEIGHT_FILES)}."
_EXTRAS = {"timm": "timm", "transformers": "hf"}  # of robustloss, that install a library


def build_from_library(
    name: str,
    params: Mapping[str, Any],
    num_classes: int,
    weights: str | None,
    folders: Sequence[Path] = (),
) -> nn.Module:
    """Build ``torchvision:NAME``, ``timm:NAME`` or ``transformers:FOLDER``.

    Args:
        name: As a spec names it.
        params: What the library's own function takes, such as ``num_classes``.
        num_classes: K of the data. An untrained network has as many outputs, unless params say
            otherwise; trained weights decide this themselves.
        weights: What torchvision or timm call their weights; None for random ones. A folder of
            transformers brings its own.
        folders: Where a relative folder is looked for, before the working directory.

    Raises:
        ValueError: The library is absent, knows no such name or weights, or cannot build or fetch
            it.
    """
    library, _, wanted = name.partition(":")
    if library == "torchvision":
        return _build_torchvision(wanted, params, num_classes, weights)
    if library == "timm":
        return _build_timm(wanted, params, num_classes, weights)
    if weights is not None:
        raise ValueError(
            f'weights (="{weights}"): the folder of {name} has the weights. Take the key out, or '
            "name a file."
        )
    return _build_transformers(wanted, folders)


def find_library_statement(name: str, weights: str | None) -> Stated | None:
    """Return what named weights of torchvision or timm say of their normalisation.

    Args:
        name: As a spec names the model.
        weights: As `build_from_library` takes them.
    """
    library, _, wanted = name.partition(":")
    if weights is None or library == "transformers":
        return None
    if library == "timm":
        base, _, tag = wanted.partition(".")
        tag = tag if weights == DEFAULT else weights.removeprefix(f"{base}.")
        config = _import("timm").models.get_pretrained_cfg(f"{base}.{tag}" if tag else base)
        return read_preset(config, f"the pretrained_cfg of {wanted}")
    found = _find_torchvision_weights(wanted, weights)
    return read_preset(found.transforms(), f"transforms() of {found}")


def _import(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ValueError(
            f"{library}: models need the package {library} ({error}). Install it: pip install "
            f"'robustloss[{_EXTRAS[library]}]'."
        ) from error


# --- torchvision ---------------------------------------------------------------------------------


def _build_torchvision(
    name: str, params: Mapping[str, Any], num_classes: int, weights: str | None
) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"torchvision has no classification model {name!r}{did_you_mean(name, known)}"
        )
    given: dict[str, Any] = {"weights": None, "progress": False}
    if weights is not None:
        given["weights"] = _find_torchvision_weights(name, weights)
    else:
        params = {"num_classes": num_classes, **params}
        if name in ("googlenet", "inception_v3"):
            params = {"init_weights": True, **params}  # else they warn of a change to come
    try:
        with _waiting_shortly():
            return call_factory(
                f"torchvision:{name}", models.get_model_builder(name), params, given
            )
    except ValueError as error:
        if weights is None or not isinstance(error.__cause__, OSError):
            raise
        found = given["weights"]
        raise ValueError(
            f'weights (="{weights}"): torchvision could not fetch {found.url} ('
            f"{_first_line(error.__cause__)}). Put that file into {_checkpoint_folder()}, or name "
            "a file of weights."
        ) from error


def _find_torchvision_weights(name: str, weights: str) -> Any:
    """Return a member of the model's enumeration of weights: "DEFAULT", "IMAGENET1K_V1", ..."""
    from torchvision import models

    known = models.get_model_weights(name)
    kind, dot, member = weights.rpartition(".")
    member = member.upper()
    if (not dot or kind == known.__name__) and member in known.__members__:
        return known[member]
    raise ValueError(
        f'weights (="{weights}") are not weights of torchvision:{name}, which has '
        f"{', '.join([DEFAULT, *(each.name for each in known)])}. {_REMEDY}"
    )


def _checkpoint_folder() -> str:
    import torch

    return os.path.join(torch.hub.get_dir(), "checkpoints")  # noqa: PTH118  (for a message)


@contextmanager
def _waiting_shortly() -> Iterator[None]:
    """Let a connection that nobody answers fail soon: no network must not look like a hang."""
    import socket

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# --- timm ----------------------------------------------------------------------------------------


def _build_timm(
    name: str, params: Mapping[str, Any], num_classes: int, weights: str | None
) -> nn.Module:
    timm = _import("timm")
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = did_you_mean(base, timm.list_models())
        raise ValueError(f"timm has no model {base!r}{near} timm.list_models() lists them.")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")]
    if weights is not None and weights.upper() != DEFAULT:
        tag = weights.removeprefix(f"{base}.")
    if (tag and tag not in tags) or (weights is not None and not tags):
        what = f'weights (="{weights}")' if weights else f"the tag {tag!r}"
        has = f"which has {', '.join([DEFAULT, *tags])}" if tags else "which has no trained ones"
        raise ValueError(f"{what} is not of timm:{base}, {has}. {_REMEDY}")
    if weights is None:
        params = {"num_classes": num_classes, **params}
    given = {"model_name": f"{base}.{tag}" if tag else base, "pretrained": weights is not None}
    if found := sorted(_FILES_OF_TIMM & params.keys()):
        raise ValueError(
            f"timm:{name}.{found[0]}: names weights, which the key weights does. Take it out."
        )
    try:
        return call_factory(f"timm:{name}", timm.create_model, params, given)
    except ValueError as error:
        if weights is None or not isinstance(error.__cause__, OSError):
            raise
        raise ValueError(
            f'weights (="{weights}"): timm could not fetch those of {given["model_name"]} from the '
            f"Hugging Face hub ({_first_line(error.__cause__)}). Name a file of weights instead, "
            "or fetch them where there is a network: HF_HOME names the folder that keeps them."
        ) from error


# --- transformers --------------------------------------------------------------------------------


def _build_transformers(wanted: str, folders: Sequence[Path]) -> nn.Module:
    """Load an image classifier from a folder that save_pretrained wrote; no code in it is run."""
    places = [Path(folder) / os.path.expanduser(wanted) for folder in (*folders, Path.cwd())]
    found = next((place for place in places if (place / "config.json").is_file()), None)
    if found is None:
        looked = ", ".join(dict.fromkeys(map(str, places)))
        raise ValueError(
            f"there is no folder with a config.json at {looked}. Write one: "
            "model.save_pretrained(folder)."
        )
    transformers = _import("transformers")
    with _silent(transformers):
        try:
            model, loaded = transformers.AutoModelForImageClassification.from_pretrained(
                found, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:  # whatever an odd folder makes it do
            raise ValueError(
                f"transformers cannot load an image classifier from {found}: {_first_line(error)}. "
                "Write the folder anew: model.save_pretrained(folder)."
            ) from error
    if missing := [*sorted(loaded["missing_keys"]), *sorted(map(str, loaded["mismatched_keys"]))]:
        raise ValueError(
            f"the weights in {found} lack {', '.join(missing[:3])}, or have them in another shape: "
            "it would have random ones. Save a model that is an image classifier."
        )
    return model


@contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """Keep transformers from drawing bars and from warning of what is checked here."""
    log = transformers.utils.logging
    bars, verbosity = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return f"{type(error).__name__}: {first:.200}"
