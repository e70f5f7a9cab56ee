"""A whole model in one file, as TorchScript or torch.export write it.

Such a file is a program, so a spec that names one is treated as one that names code.
"""

import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from robustloss.attacks.settings import preserving_settings


def find_model_file(name: str, folders: Sequence[Path] = ()) -> Path:
    """Return the file of a whole model.

    Args:
        name: As a spec names it.
        folders: Where a relative path is looked for, before the working directory.

    Raises:
        ValueError: There is no such file.
    """
    places = [Path(folder) / os.path.expanduser(name) for folder in (*folders, Path.cwd())]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(dict.fromkeys(str(place.parent) for place in places))
    raise ValueError(f"there is no file {Path(name).name} in {looked}.")


def load_model_file(path: Path) -> nn.Module:
    """Load the model of a file, which runs it as a program.

    Raises:
        ValueError: It holds no program of TorchScript or torch.export, or one that is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # The names begin with that of the file as it was saved.
            names = {each.partition("/")[2] for each in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        names = set()
    if "data.pkl" in names and "constants.pkl" not in names:
        raise ValueError(
            f"{path.name} holds weights or a pickled module, not a program. Weights go into "
            f'weights = "{path.name}", and model names their network. A module goes through a '
            f"factory of yours that returns torch.load({path.name!r}, weights_only=False), which "
            "runs code of the file."
        )
    scripted = "constants.pkl" in names
    if not scripted and not any(each.startswith("models/") for each in names):
        raise ValueError(
            f"{path.name} is no program of TorchScript or torch.export. Write one with "
            "torch.jit.save or torch.export.save."
        )
    try:
        with preserving_settings():
            if scripted:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)
                    return torch.jit.load(path, map_location="cpu")
            return torch.export.load(path).module()
    except Exception as error:  # whatever a damaged file makes the reader do
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path.name} cannot be loaded by torch {torch.__version__}: {type(error).__name__}: "
            f"{first:.200}"
        ) from error
