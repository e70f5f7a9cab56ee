"""Data sets from a function of the user's: "file.py:factory" or "package.module:factory"."""

from __future__ import annotations

import dataclasses
import inspect
import random
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from robustloss.attacks.patches import find_replaced, list_functions
from robustloss.attacks.plugins import PluginError, check_parameters, load_object
from robustloss.attacks.settings import preserving_settings
from robustloss.data.brought.items import is_dataset, names_of, read_datasets, refuse_picture_keys
from robustloss.data.brought.pixels import Given, as_array, build_content
from robustloss.data.files import DataError
from robustloss.data.reader import Content, Place
from robustloss.seeding import derive_seed, using_seed
from robustloss.spec.data import DataSpec

SETS = ("train", "test", "validation")  # the last may be left out
KEYS = (*SETS, "class_names")
_FORM = 'Return {"train": (images, labels), "test": (images, labels)}, or torch Datasets there.'


class CodeReader:
    """Calls the function that data.name names, with data.params."""

    def read(self, data: DataSpec, place: Place) -> Content:
        """Call the function and read what it returns; see `Reader.read`.

        A function that takes `root` is given the data folder. Random numbers are seeded, and what
        the code sets for the whole process is put back.
        """
        where = f"data.name (={data.name!r})"
        folders = () if place.near is None else (place.near,)
        with _sealing(where):
            factory = load_object(data.name, folders)
            if not callable(factory):
                raise DataError(f"{where} is {type(factory).__name__}, but must be a function.")
            takes_root = "root" in inspect.signature(factory).parameters
            given = {"root": place.root} if takes_root and "root" not in data.params else {}
            check_parameters(factory, data.params, data.name, given)
            made = _sets_of(factory(**given, **data.params), where)
            names = _class_names(made.pop("class_names", None), where)
            pairs, datasets = {}, {}
            for name, value in made.items():
                if isinstance(value, tuple | list) and len(value) == 2:
                    pairs[name] = _take_pair(value, name, where)
                elif is_dataset(value) and not isinstance(value, tuple | list | Mapping):
                    datasets[name] = value
                else:
                    raise DataError(
                        f"{where}: {name} is {type(value).__name__}, but must be a pair (images, "
                        f"labels) or a torch Dataset with a length. {_FORM}"
                    )
            if pairs:
                refuse_picture_keys(data, where, next(iter(pairs)))
            read = read_datasets(datasets, data, where=where, quiet=place.quiet)
            sets = {name: (pairs | read.given)[name] for name in made}
            return build_content(
                sets,
                data,
                where=where,
                files=data.name,
                class_names=names or names_of(made["train"]),
                size=read.size,
                remark=read.remark,
            )


def _sets_of(made: object, where: str) -> dict[str, Any]:
    """Return what a factory made by the names of KEYS, train first."""
    if dataclasses.is_dataclass(made) and not isinstance(made, type):
        made = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    elif hasattr(made, "_asdict"):  # a NamedTuple
        made = made._asdict()
    if not isinstance(made, Mapping):
        raise DataError(
            f"{where} returned {type(made).__name__}, but must return a dict or a dataclass with "
            f"train and test. {_FORM}"
        )
    if unknown := [key for key in made if key not in KEYS]:
        raise DataError(
            f"{where} returned {unknown[0]!r}, which is none of {', '.join(KEYS)}. {_FORM}"
        )
    found = {key: made[key] for key in KEYS if made.get(key) is not None}
    if absent := [name for name in SETS[:2] if name not in found]:
        raise DataError(f"{where} returned no {absent[0]} set. {_FORM}")
    return found


def _take_pair(value: tuple[Any, Any] | list[Any], name: str, where: str) -> Given:
    images, labels = as_array(value[0]), as_array(value[1])
    if isinstance(value[1], list | tuple | range):
        labels = np.array(value[1])
    if images is None or labels is None:
        raise DataError(
            f"{where}: {name} is a pair of {type(value[0]).__name__} and {type(value[1]).__name__},"
            " but must be (images, labels), arrays or tensors of N images and N labels."
        )
    return Given(images, labels, f"the images of {name}", f"the labels of {name}")


def _class_names(names: object, where: str) -> tuple[str, ...]:
    if names is None:
        return ()
    if isinstance(names, str) or not isinstance(names, list | tuple | np.ndarray):
        raise DataError(
            f"{where}: class_names is {type(names).__name__}, but must be a list of names, in the "
            "order of the labels."
        )
    return tuple(map(str, names))


@contextmanager
def _sealing(where: str) -> Iterator[None]:
    """Run somebody else's code: seeded, with what it leaves put back, and its errors told."""
    functions = list_functions()
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (whatever their code draws from)
    random.seed(seed := derive_seed("data"))
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        with preserving_settings(), using_seed("data"):
            yield
    except DataError:
        raise
    except PluginError as error:
        raise DataError(f"{where}: {error}") from None
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        at = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{where} failed: {reason}{at}.") from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    if replaced := find_replaced(functions):
        raise DataError(
            f"{where} replaces {', '.join(replaced[:3])}, on which all numbers rest. Take that out."
        )
