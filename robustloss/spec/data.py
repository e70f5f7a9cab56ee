"""Tables [data], [[outside]] and [[shifts]]: which images."""

from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from robustloss.spec.base import (
    MAX_LABEL,
    Count,
    Labelled,
    ListOf,
    Name,
    PlainTable,
    Table,
    declare,
    only,
    raise_at,
)
from robustloss.spec.errors import choice_rule, rule_error
from robustloss.spec.prefixes import placed

DATASET_SUMMARIES = {
    "digits": "1,797 handwritten digits of 8x8 pixels, bundled with scikit-learn (no download)",
    "mnist": "MNIST: 70,000 handwritten digits of 28x28 pixels",
    "fashion_mnist": "Fashion-MNIST: 70,000 articles of clothing, 28x28 pixels",
    "kmnist": "Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28x28 pixels",
    "cifar10": "CIFAR-10: 60,000 colour images of 32x32 pixels, 10 classes",
    "cifar100": "CIFAR-100: 60,000 colour images of 32x32 pixels, 100 classes",
    "image_folder": "your own images: data.folder names a folder, or a tar archive, with "
    "train/CLASS/IMAGE and test/CLASS/IMAGE",
    "arrays": "your own images: data.file names an .npz with x_train, y_train, x_test and y_test",
    "hugging_face": "your own images: data.folder names a folder of Hugging Face datasets, parquet "
    "files or what save_to_disk wrote",
}
"""Name -> one line of every data set. What reads them stands in `data.catalogue`."""

DATA_LABELS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
"""Name -> how reports call a data set whose name they do not write as it is."""

OPEN_SUMMARIES = {
    "torchvision:NAME": "any classification set of torchvision, as torchvision:SVHN",
    "file.py:factory": "your own images: a function that returns train and test; or "
    "package.module:factory",
}
"""Form of a name -> one line, for data sets that have no fixed name."""

OUTSIDE_SETS = (*DATASET_SUMMARIES, "uniform_noise", "held_out_classes")

DataName = Annotated[Name, placed("data set", OUTSIDE_SETS)]

_MISSING = {
    "image_folder": ("folder", "must be given: image_folder reads the folder it names."),
    "arrays": ("file", "must be given: arrays reads the .npz it names."),
    "hugging_face": ("folder", "must be given: hugging_face reads the folder it names."),
}
FIXED_SETS = tuple(name for name in DATASET_SUMMARIES if name not in _MISSING)
"""The data sets that are always the same images."""

_PICTURES = ("image_folder", "hugging_face", "torchvision:", "file.py:")
_KEYS = {
    "folder": ("image_folder", "hugging_face"),
    "image_size": _PICTURES,
    "resize": _PICTURES,
    "channels": _PICTURES,
    "ten_crop": ("image_folder",),
    "in_memory": ("image_folder", "hugging_face"),
    "file": ("arrays",),
    "layout": ("arrays", "file.py:"),
    "params": ("hugging_face", "torchvision:", "file.py:"),
}
"""Keys that some names of data sets take and others do not."""


def kind_of(name: str) -> str:
    """Return the kind of a data set by its name: the name, "torchvision:" or "file.py:"."""
    prefix, colon, _ = name.partition(":")
    return name if not colon else "torchvision:" if prefix == "torchvision" else "file.py:"


def summary_of(name: str) -> str:
    """Return one line on a data set, by its name."""
    if name in DATASET_SUMMARIES:
        return DATASET_SUMMARIES[name]
    kind = kind_of(name)
    return f"{name.partition(':')[2]} of torchvision" if kind == "torchvision:" else "your own code"


def _only(name: str, kinds: tuple[str, ...]) -> str:
    """Return the rule that a key breaks which this data set does not take."""
    listed = " or ".join(f'"{kind}{"NAME" if ":" in kind else ""}"' for kind in kinds)
    return f"is for name = {listed} only, not {name!r}. Remove it."


def _refuse_others(table: Table, name: str) -> None:
    """Refuse the keys of a table that a data set of this name does not take."""
    for key, kinds in _KEYS.items():
        field = type(table).model_fields.get(key)
        if field and getattr(table, key) != field.default and kind_of(name) not in kinds:
            raise_at(key, getattr(table, key), _only(name, kinds))


Side = Annotated[int, Field(ge=1, le=4096)]  # pixels


def _size(meaning: str) -> Any:
    return declare(meaning, None, shown="all of the data set")


class DataSpec(Table):
    """Table [data]: the images. A size left out is the data set's own."""

    name: DataName = declare(
        "data set: robustloss list datasets; or torchvision:NAME, file.py:factory or "
        "package.module:factory",
        "digits",
    )
    train_size: Count | None = _size("training images, equal class shares")
    validation_size: Count | None = _size("validation images (thresholds)")
    test_size: Count | None = _size("test images, the ones that are attacked")
    label: str = declare("how reports call the data", "", shown="the name, as Fashion-MNIST")
    class_fractions: ListOf[Annotated[float, Field(gt=0, le=1)]] | None = declare(
        "share of each class's training images that is kept, one number a class",
        None,
        example=(0.1, 1.0),
        kind="list of numbers > 0, <= 1",
        shown="all 1",
    )
    classes: Annotated[ListOf[Annotated[int, Field(ge=0)]], Field(min_length=2)] | None = declare(
        "the classes that are learnt, numbered anew; the others are held out (for [[outside]])",
        None,
        example=(0, 1, 2, 3, 4),
        kind="list of integers >= 0",
        shown="all",
    )
    folder: Name | None = declare(
        "image_folder: folder with train/CLASS and test/CLASS, or a tar archive of one; "
        "hugging_face: folder of parquet files; relative to the spec, to --data, then to where "
        "you stand",
        None,
        shown="required by image_folder and hugging_face",
    )
    image_size: Side | None = declare(
        "image_folder, hugging_face, torchvision:, file.py: side in pixels of the square cut out "
        "of each picture",
        None,
        shown="the images' own size",
    )
    resize: Side | None = declare(
        "as image_size: what the shorter side becomes before; crops of training are taken from "
        "this square",
        None,
        shown="image_size",
    )
    channels: Annotated[
        Literal[1, 3] | None, only("must be 1 or 3: grey or colour.", 1, 3, None)
    ] = declare(
        "as image_size: grey (1) or colour (3); other images are converted",
        None,
        kind="1 | 3",
        shown="3 if any image has colour",
    )
    ten_crop: bool = declare(
        "image_folder: also top-1 and top-5 error on ten crops of the test images", False
    )
    in_memory: Annotated[
        bool | Literal["auto"], only('must be true, false or "auto".', True, False, "auto")
    ] = declare(
        "image_folder: keep the decoded images, or decode them for every batch; hugging_face: keep "
        "them, or write them to a file; auto: keep what fits in a quarter of the memory",
        "auto",
        kind='true | false | "auto"',
    )
    file: Name | None = declare(
        "arrays: .npz with x_train, y_train, x_test, y_test, and where you like x_validation, "
        "y_validation, class_names; relative to the spec, to --data, then to where you stand",
        None,
        shown="required by arrays",
    )
    layout: Annotated[
        Literal["nchw", "nhwc"] | None, only('must be "nchw" or "nhwc".', "nchw", "nhwc", None)
    ] = declare(
        "arrays, file.py: where the channels stand: behind the images' number, or last",
        None,
        kind='"nchw" | "nhwc"',
        shown="told by the shape",
    )
    params: PlainTable = declare(
        "torchvision:, file.py: parameters of the class or function; hugging_face: names of "
        "columns (image, label) and of splits (train, validation, test)",
        {},
    )

    @model_validator(mode="after")
    def complete_label(self) -> Self:
        """Call the data by their name, unless the spec says otherwise."""
        if "label" not in self.model_fields_set:
            torchvision = kind_of(self.name) == "torchvision:"
            # of a function of one's own, without the folders before its file
            label = self.name.partition(":")[2] if torchvision else self.name.rpartition("/")[2]
            if self.name == "arrays" and self.file is not None:
                label = PurePath(self.file).stem
            if self.name == "hugging_face" and self.folder is not None:
                label = PurePath(self.folder).name
            label = label if label.isprintable() else self.name
            self._complete({"label": DATA_LABELS.get(self.name, label)})
        if not (self.label.isprintable() and self.label.strip() and len(self.label) <= MAX_LABEL):
            self._refuse("label", f"must be one line of 1 to {MAX_LABEL} characters.")
        return self

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        """Refuse keys of other data sets, and those that do not go together."""
        _refuse_others(self, self.name)
        key, rule = _MISSING.get(self.name, ("name", ""))
        if getattr(self, key) is None:
            self._refuse(key, rule)
        size, resize = self.image_size, self.resize
        if resize is not None and size is None:
            self._refuse(
                "resize", "needs image_size, the side that is cut out of the resized image."
            )
        if resize is not None and size is not None and resize < size:
            rule = f"must be at least image_size (={size}), which is cut out of it."
            self._refuse("resize", rule)
        if self.ten_crop and (resize or 0) <= (size or 0):
            rule = "needs resize larger than image_size: the ten crops are cut out of that square."
            self._refuse("ten_crop", rule)
        return self


class OutsideSpec(Labelled):
    """One table [[outside]]: images that are not of the data, shown to every network."""

    name: DataName = declare(
        f"which images: {', '.join(OUTSIDE_SETS)}; or torchvision:NAME, file.py:factory or "
        "package.module:factory",
        example="fashion_mnist",
    )
    images: Count = declare("how many of them at most, spread evenly", 2000)
    folder: Name | None = declare(
        "image_folder: any folder of images, or a tar archive of one; hugging_face: as for [data]; "
        "relative to the spec, to --data, then to where you stand",
        None,
        shown="required by image_folder and hugging_face",
    )
    file: Name | None = declare(
        "arrays: .npz as for [data]; its test images are shown", None, shown="required by arrays"
    )

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Refuse what is neither a data set nor another source of images."""
        if ":" not in name and name not in OUTSIDE_SETS:
            raise rule_error(choice_rule(name, OUTSIDE_SETS))
        return name

    layout: Annotated[
        Literal["nchw", "nhwc"] | None, only('must be "nchw" or "nhwc".', "nchw", "nhwc", None)
    ] = declare("as in [data]", None, kind='"nchw" | "nhwc"', shown="told by the shape")
    image_size: Side | None = declare(
        "as in [data]: side of the square cut out of each picture; then it gets the data's size",
        None,
        shown="the pictures' own size; image_folder: that of the data",
    )
    resize: Side | None = declare("as in [data]", None, shown="image_size")
    params: PlainTable = declare("as in [data]", {})

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        """Ask for what this source needs, and refuse keys of others, as [data] does."""
        if self.name in DATASET_SUMMARIES or ":" in self.name:
            self.as_data()
            return self
        _refuse_others(self, self.name)
        return self

    def as_data(self) -> DataSpec:
        """Return the data set whose test images are shown, as a table [data] names it."""
        shared = DataSpec.model_fields.keys() & type(self).model_fields.keys() - {"label"}
        return DataSpec.model_validate({key: getattr(self, key) for key in shared})


GENERATED = ("noise", "blur", "contrast", "brightness", "rotation", "translation", "occlusion")
"""Shifts that are made from the test images. What makes them stands in `data.shifts`."""
CORRUPTIONS = "corruptions"  # a published folder of corrupted test images
SHIFTS = (*GENERATED, CORRUPTIONS)
SEVERITIES = (1, 2, 3, 4, 5)
_USUAL = 19  # corruptions of CIFAR-10-C: what a folder is taken for before it is looked at


class ShiftSpec(Labelled):
    """One table [[shifts]]: test images that are changed and keep their label."""

    labels: ClassVar = {name: name.capitalize() for name in SHIFTS}

    name: Name = declare(
        f"what changes: {', '.join(GENERATED)}; or corruptions, a folder in the form of MNIST-C or "
        "CIFAR-10-C",
        example="rotation",
    )
    severities: ListOf[Annotated[int, Field(ge=1, le=5)]] = declare(
        "how strong, from 1 to 5; a set without severities, such as MNIST-C, has only 1",
        SEVERITIES,
        kind="list of integers from 1 to 5",
    )
    images: Count = declare("how many of them at most, spread evenly", 2000)
    folder: Name | None = declare(
        "corruptions: the folder, or a tar archive of it; relative to the spec, to --data, then to "
        "where you stand",
        None,
        shown="required by corruptions",
    )

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Refuse an unknown shift."""
        if name not in SHIFTS:
            raise rule_error(choice_rule(name, SHIFTS))
        return name

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        """Ask for a folder where one is read, and for nowhere else; put the severities in order."""
        if (self.name == CORRUPTIONS) != (self.folder is not None):
            needed = "must be given: corruptions reads the folder it names."
            other = f"is not for {self.name}, which is made from the test images. Take it out."
            self._refuse("folder", needed if self.name == CORRUPTIONS else other)
        ordered = tuple(sorted(set(self.severities)))
        if ordered != self.severities:
            if len(ordered) < len(self.severities):
                self._refuse("severities", "must not name a severity twice.")
            object.__setattr__(self, "severities", ordered)
        return self

    @property
    def most_images(self) -> int:
        """How many images are shown to each model; of a folder, about how many."""
        return self.images * len(self.severities) * (1 if self.folder is None else _USUAL)
