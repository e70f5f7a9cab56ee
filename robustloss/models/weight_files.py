"""Weights as files: ours, checked by a digest, and a user's, which may be of any origin."""

import argparse
import hashlib
import json
import os
import tarfile
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from robustloss.data.files import is_lfs_pointer
from robustloss.run_files import check_file
from robustloss.spec.prefixes import WEIGHT_FILES
from robustloss.storage import CorruptFile, write_bytes

MOST_BYTES = 4 * 2**30  # of our own files: a checkpoint of the largest networks has some 3 GiB
_FROM_DATA = {"mean", "std"}  # of a classifier; weights without them take those of the data
_UNUSED = "num_batches_tracked"  # of batch normalisation: older files lack it, training reads it
# What DataParallel, averaged models and LightningModules put before the names of a module.
_WRAPPERS = ("module.", "model.", "net.", "network.")


# --- ours ----------------------------------------------------------------------------------------


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> str:
    """Write tensors and plain metadata as one checked safetensors file.

    Args:
        path: The file.
        tensors: By name, on any device.
        meta: Plain values for JSON.

    Returns:
        The digest of the tensors, which names these weights.
    """
    # Clones: safetensors refuses tensors that share their memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    sha256 = tensor_digest(plain)
    text = json.dumps({**meta, "tensors": sha256}, sort_keys=True)
    # One entry: safetensors writes several in an order that changes from call to call.
    header = {"robustloss": f"{hashlib.sha256(text.encode()).hexdigest()} {text}"}
    write_bytes(path, safetensors.torch.save(plain, metadata=header))
    return sha256


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what save_tensors wrote.

    Returns:
        The tensors on the CPU, and the metadata with the tensors' digest under ``tensors``.

    Raises:
        CorruptFile: Truncated, altered, not written by save_tensors, a link or too large.
    """
    try:
        check_file(path, MOST_BYTES)
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest, text = header["robustloss"].split(" ", 1)
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError("its metadata were altered")
        meta = json.loads(text)
        if tensor_digest(tensors) != meta["tensors"]:
            raise ValueError("its tensors were altered")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # whatever a damaged file makes the reader do
        raise CorruptFile(f"{path} is damaged: {error}") from error
    return tensors, meta


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return what names these tensors: a hash of names, types, shapes and bytes."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        sha256.update(f"{name}:{value.dtype}:{tuple(value.shape)}:".encode())
        sha256.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def storable_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the part of a state dict that a file can hold and give back.

    Not what is no tensor, as quantised layers and `get_extra_state` have it, nor sparse tensors,
    nor those without values or rows of their own. The code that made them must make them anew.
    """
    return {name: value for name, value in module.state_dict().items() if _is_storable(value)}


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what `storable_state` returned into a module of the same build.

    Raises:
        RuntimeError: A tensor is missing, unknown, or has another shape.
    """
    own = storable_state(module)
    if own.keys() == module.state_dict().keys():
        module.load_state_dict(dict(tensors))
        return
    # Layers with other things in their state, as quantised ones, load all of it or fail.
    if {n: v.shape for n, v in own.items()} != {n: v.shape for n, v in tensors.items()}:
        raise RuntimeError(f"it holds {sorted(tensors)}, or other shapes; expected {sorted(own)}.")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def _is_storable(value: object) -> bool:
    if not isinstance(value, Tensor):
        return False
    plain = value.layout == torch.strided and not (value.is_quantized or value.is_nested)
    if not plain or value.is_meta:
        return False
    steps = zip(value.stride(), value.shape, strict=True)
    return all(step != 0 or size < 2 for step, size in steps)  # 0: all rows are one


# --- a user's ------------------------------------------------------------------------------------


def find_weights(name: str, folders: Sequence[Path]) -> Path:
    """Return the file of weights, looked for in the folders, then in the working directory.

    Args:
        name: As a spec names it.
        folders: Where a relative path is looked for first.

    Raises:
        ValueError: There is no such file.
    """
    for folder in (*folders, Path.cwd()):
        path = Path(folder) / os.path.expanduser(name)
        if path.is_file():
            return path
    looked = ", ".join(dict.fromkeys(map(str, (*folders, Path.cwd()))))
    raise ValueError(f"weights (={name}): there is no such file in {looked}.")


def load_file(module: nn.Module, path: Path) -> list[str]:
    """Load the weights of a file into a module that they must fit.

    Returns:
        What a reader must know of them: which of several the file has, what was left out.

    Raises:
        ValueError: As `read_weights` and `load_weights`.
    """
    state = _read_state(path)
    tensors, remarks = _take_out(state, path.name)
    return [*remarks, *load_weights(module, tensors, path.name)]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, executing nothing: safetensors, or torch's own format of tensors alone.

    It may stand inside a checkpoint, under one of the names that training programs give it.

    Raises:
        ValueError: Another format, a damaged file, or one that holds no state dict.
    """
    return _take_out(_read_state(path), path.name)[0]


def _read_state(path: Path) -> object:
    """Return what a file holds, of plain kinds alone."""
    with path.open("rb") as file:
        if is_lfs_pointer(file.read(100)):
            raise ValueError(
                f"weights (={path.name}) is a pointer of Git LFS, not the file itself. "
                "Fetch it: git lfs pull."
            )
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise ValueError(f"weights (={path.name}) is no safetensors file: {error}.") from error
        except MemoryError:
            raise ValueError(f"weights (={path.name}) do not fit into memory.") from None
    if path.suffix not in WEIGHT_FILES:
        raise ValueError(
            f"weights (={path.name}) must end in .safetensors, or in {', '.join(WEIGHT_FILES[1:])} "
            "of torch's own format. Save safetensors.torch.save_file(model.state_dict(), path)."
        )
    if _is_tar(path):
        raise ValueError(
            f"weights (={path.name}) is a tar archive, the format of torch before 2018, and is not "
            "read. Save model.state_dict() again, best as safetensors."
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or an odd file makes the reader do
        raise ValueError(
            f"weights (={path.name}) holds more than tensors, or is damaged, and is not loaded: "
            f"{_explain_refusal(path, error)}"
        ) from error


def _is_tar(path: Path) -> bool:
    """Return whether torch would take a file for a tar archive: it then makes a folder for it."""
    try:
        tarfile.open(path, "r:").close()
    except (tarfile.TarError, OSError):
        return False
    return True


_SCALAR = np.float64(0).__reduce__()[0]  # what builds a number of numpy
# Settings and numbers that checkpoints hold beside the tensors. To build them runs nothing.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")),
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 calls it
]


def _explain_refusal(path: Path, error: Exception) -> str:
    """Return why torch does not read a file of weights, and what to do."""
    try:
        code = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of the format before torch 1.6, or of none
        code = []
    if code:
        return (
            f"it has {_name_some(code)}, and reading that runs code. Save model.state_dict() "
            "alone, best as safetensors. Of a whole module that you trust, name a factory that "
            f'returns torch.load({path.name!r}, weights_only=False): model = "file.py:factory".'
        )
    if "TorchScript" in str(error):
        return f'it is a program of TorchScript. Name it as the whole model: model = "{path.name}".'
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return f"{reason:.300}. Save model.state_dict() alone, best as safetensors."


_PLACES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "teacher", "student"),
)
"""Under which names training programs keep a state dict in a checkpoint, the likeliest first."""


def _take_out(state: object, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict in what a file holds, and which others it has.

    Args:
        state: What the file holds.
        name: Of the file, for messages.

    Raises:
        ValueError: It holds none.
    """
    remarks: list[str] = []
    if isinstance(state, Mapping) and not all(isinstance(v, Tensor) for v in state.values()):
        held = [key for key in _PLACES if _holds_tensors(state.get(key))]
        if held:
            others = f", not of {' or '.join(map(repr, held[1:]))}" if held[1:] else ""
            if others:
                remarks = [f"of {name} the weights of {held[0]!r} are taken{others}"]
            state = state[held[0]]
    try:
        return check_state(state), remarks
    except ValueError as error:
        raise ValueError(f"weights (={name}) {error}") from None


def _holds_tensors(found: object) -> bool:
    return isinstance(found, Mapping) and any(isinstance(each, Tensor) for each in found.values())


def check_state(state: object) -> dict[str, Tensor]:
    """Return a state dict, if it is one: dense tensors with values, by name.

    Raises:
        ValueError: It is something else; the text goes on after the name of the file.
    """
    if not isinstance(state, Mapping):
        raise ValueError("must hold a state dict: names and tensors.")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            for inner, found in state.items():  # what training programs put around one
                if isinstance(found, Mapping) and any(
                    isinstance(each, Tensor) for each in found.values()
                ):
                    raise ValueError(
                        f"is a checkpoint with {_name_some(list(state))}. Save what it has under "
                        f"{inner!r:.60} alone: torch.save(checkpoint[{inner!r:.60}], path)."
                    )
            raise ValueError(
                "must hold a state dict: names and tensors. It has "
                f"{name!r:.60}, a {type(name).__name__}, for a {type(value).__name__}."
            )
        if value.is_meta or value.is_nested or value.is_quantized or value.layout != torch.strided:
            raise ValueError(
                f"has {name!r:.60}, which is no ordinary tensor (device {value.device}, "
                f"{value.dtype}, {value.layout}). Save dense tensors with values: materialise the "
                "model, or call to_dense() or dequantize(), before that."
            )
    return dict(state)


def load_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], name: str, *, but: Collection[str] = ()
) -> list[str]:
    """Load weights into a module that they must fit.

    Args:
        module: Takes them.
        tensors: All of its state dict, also under the names that a wrapper gives them; only mean
            and std, and counts of batches, may be left out.
        name: The file, for messages.
        but: Names of tensors that stay as they are, whatever the file has for them.

    Returns:
        What was left out of the file, in words; mostly nothing.

    Raises:
        ValueError: A tensor is missing, unknown, or has another shape or kind of numbers.
    """
    own = module.state_dict()
    optional = {*_FROM_DATA, *but}
    needed = [key for key in own if key not in optional and not key.endswith(_UNUSED)]
    tensors, remarks = _strip_wrappers(tensors, own, needed, name)
    tensors |= {key: own[key] for key in but}
    wrong = [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(own[key].shape)} here"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    # Rounding to another floating type is wanted; 0 and 1 for weights is a mistake.
    wrong += [
        f"{key} is {tensors[key].dtype} in the file and {own[key].dtype} here"
        for key in own
        if key in tensors and _kind(tensors[key]) != _kind(own[key])
    ]
    missing = [key for key in needed if key not in tensors]
    unknown = [key for key in tensors if key not in own and not key.endswith(_UNUSED)]
    parts = [*wrong[:2], *(f"{len(wrong) - 2} more differ" for _ in wrong[2:3])]
    parts += [f"it lacks {_name_some(missing)}"] if missing else []
    parts += [f"nothing here is called {_name_some(unknown)}"] if unknown else []
    if parts:
        near = get_close_matches(unknown[0], missing, 1, 0.0) if unknown and missing else []
        hint = f" The nearest to {unknown[0]} is {near[0]}." if near else ""
        raise ValueError(
            f"weights (={name}) do not fit: {'; '.join(parts)}.{hint} Name the network and loss "
            "that it was trained with."
        )
    module.load_state_dict({**own, **{key: tensors[key] for key in own if key in tensors}})
    return remarks


def _strip_wrappers(
    tensors: Mapping[str, Tensor], own: Mapping[str, Any], needed: Sequence[str], name: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under the names of the module, where wrappers have lengthened them.

    Args:
        tensors: Of the file.
        own: The state dict of the module.
        needed: What it must have.
        name: The file, for the remark.

    Returns:
        The tensors, and what was left out because it stands beside the wrapped module, as the
        metrics and losses of a LightningModule do.
    """
    found, left = dict(tensors), []
    if not any("_orig_mod." in key for key in own):
        found = {key.replace("_orig_mod.", ""): value for key, value in found.items()}
    for _ in range(3):  # a wrapper in a wrapper
        if not needed or any(key in found for key in needed):
            break
        for prefix in _WRAPPERS:
            inner = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
            if inner and (len(inner) == len(found) or inner.keys() >= {*needed}):
                left += [key for key in found if not key.startswith(prefix)]
                found = inner
                break
    remarks = (
        [f"of {name} {_name_some(left)} are left out: they belong to no layer"] if left else []
    )
    return found, remarks


def _kind(tensor: Tensor) -> object:
    if tensor.is_floating_point():
        return "floating"
    return tensor.dtype if tensor.is_complex() or tensor.dtype == torch.bool else "integer"


def _name_some(names: Sequence[object]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"{name!s:.60}" for name in names[:3]) + more
