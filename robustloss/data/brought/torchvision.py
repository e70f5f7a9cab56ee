"""Any classification set of torchvision, found by the name of its class."""

from __future__ import annotations

import contextlib
import inspect
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from robustloss.attacks.plugins import PluginError, check_parameters, did_you_mean
from robustloss.attacks.settings import preserving_settings
from robustloss.data.brought.items import names_of, read_datasets
from robustloss.data.brought.pixels import build_content
from robustloss.data.decode import FORMATS
from robustloss.data.files import TIMEOUT_S, AbsentError, DataError
from robustloss.data.reader import Content, Place
from robustloss.data.splits import TEST_SHARE
from robustloss.spec.data import DataSpec

# How torchvision calls its splits, in the order in which they are tried.
_SPLITS = {
    "train": ("train", "trainval"),
    "test": ("test", "val", "valid"),
    "validation": ("val", "valid"),
}
_OWN = ("root", "download", "transform", "target_transform", "transforms", "loader")


class TorchvisionReader:
    """Reads one class of torchvision.datasets, from the data folder.

    Args:
        name: of the class.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, data: DataSpec, place: Place) -> Content:
        """Read all images; absent files are downloaded by torchvision. See `Reader.read`."""
        where = f"data.name (={data.name!r})"
        kind = self._find(where)
        if passed := [key for key in data.params if key in _OWN]:
            raise DataError(f"data.params.{passed[0]}: robustloss decides it. Remove it.")
        with _only_known_formats(), preserving_settings():
            try:
                sets = self._open(kind, data.params, place, where)
                read = read_datasets(sets, data, where=where, quiet=place.quiet)
            except DataError:
                raise
            except PluginError as error:
                raise DataError(f"data.params: {error}") from None
            except Exception as error:  # whatever damaged files make torchvision do
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise DataError(
                    f"{where}: torchvision cannot read its files in {place.root} ({reason}). "
                    "Delete them to have them downloaded anew."
                ) from error
        remark = read.remark
        if "test" not in sets:
            own = f"one image in {TEST_SHARE} held out for testing: it has no test images"
            remark = "; ".join(filter(None, (remark, own)))
        return build_content(
            read.given,
            data,
            where=where,
            class_names=names_of(sets["train"]),
            files=str(place.root),
            size=read.size,
            remark=remark,
        )

    def _find(self, where: str) -> type:
        from torchvision import datasets  # late, because only these data sets need it

        known = [
            name
            for name in datasets.__all__
            if name not in ("ImageFolder", "DatasetFolder", "VisionDataset")
        ]
        if self.name in ("ImageFolder", "DatasetFolder"):
            raise DataError(f'{where} is read by name = "image_folder", with data.folder.')
        if self.name == "FakeData":
            raise DataError(
                f"{where} is noise without files. Write a function that makes such images "
                "(robustloss new data NAME)."
            )
        if self.name not in known:
            raise DataError(
                f"{where} is no data set of torchvision{did_you_mean(self.name, known)} "
                "torchvision.datasets lists them."
            )
        return getattr(datasets, self.name)

    def _open(
        self, kind: type, params: Mapping[str, Any], place: Place, where: str
    ) -> dict[str, Any]:
        """Return the sets by name: their names are looked up in the signatures of the class."""
        constructors = [vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each)]
        takes = {name for each in constructors[:-1] for name in inspect.signature(each).parameters}
        check_parameters(kind, params, self.name, ("root", "train", *_OWN))

        def make(**keys: Any) -> Any:
            keys = {**params, **keys, **({"root": place.root} if "root" in takes else {})}
            fetches = "download" in takes
            try:
                return kind(**keys, **({"download": False} if fetches else {}))
            except (RuntimeError, FileNotFoundError) as error:
                tried = ""
                if fetches and place.download:
                    made, tried = _download(kind, keys)
                    if made is not None:
                        return made
                raise AbsentError(
                    f"{where}: {place.root} lacks its files{tried}. Put them there as torchvision "
                    "lays them out, or name the folder that holds them with --data or "
                    "ROBUSTLOSS_DATA."
                ) from error

        if "train" in takes:
            return {"train": make(train=True), "test": make(train=False)}
        if "split" not in takes or "split" in params:
            return {"train": make()}
        sets: dict[str, Any] = {}
        used: set[str] = set()
        for name, words in _SPLITS.items():
            for word in words:
                if word in used:
                    continue
                try:
                    sets[name] = make(split=word)
                except ValueError as error:  # torchvision names the splits that there are
                    if "split" not in str(error):
                        raise
                    continue
                used.add(word)
                break
        if "train" not in sets:
            raise DataError(f"{where} has no training split. Name another data set.")
        return sets


def _download(kind: type, keys: Mapping[str, Any]) -> tuple[Any, str]:
    """Return a set after torchvision has fetched its files; else None, and why it could not."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)  # no network must not look like a hang
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return kind(**keys, download=True), ""
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return None, f", and torchvision could not download them ({reason})"
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _only_known_formats() -> Iterator[None]:
    """Let Pillow open the formats of `decode` only: for others it may start other programs."""
    Image.init()  # else it would add the others while it looks for one that fits
    before = list(Image.ID)
    Image.ID[:] = FORMATS
    try:
        yield
    finally:
        Image.ID[:] = before
