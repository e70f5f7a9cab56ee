"""Tables [data] and [[outside]]: which images."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from robustloss.spec.base import MAX_LABEL, Count, Labelled, ListOf, Name, Table, declare, only
from robustloss.spec.errors import choice_rule, rule_error
from robustloss.spec.prefixes import canonical_name

DATASET_SUMMARIES = {
    "digits": "1,797 handwritten digits of 8x8 pixels, bundled with scikit-learn (no download)",
    "mnist": "MNIST: 70,000 handwritten digits of 28x28 pixels",
    "fashion_mnist": "Fashion-MNIST: 70,000 articles of clothing, 28x28 pixels",
    "kmnist": "Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28x28 pixels",
    "cifar10": "CIFAR-10: 60,000 colour images of 32x32 pixels, 10 classes",
    "cifar100": "CIFAR-100: 60,000 colour images of 32x32 pixels, 100 classes",
    "image_folder": "your own images: data.folder names a folder, or a tar archive, with "
    "train/CLASS/IMAGE and test/CLASS/IMAGE",
}
"""Name -> one line of every data set. What reads them stands in `data.catalogue`."""

OUTSIDE_SETS = (*DATASET_SUMMARIES, "uniform_noise", "held_out_classes")

DataName = Annotated[Name, AfterValidator(lambda name: canonical_name(name, OUTSIDE_SETS))]

_FOLDER_MISSING = "must be given: image_folder reads the folder it names."
_FOLDER_ONLY = 'is for name = "image_folder" only, not {!r}. Remove it.'
_FOLDER_KEYS = ("folder", "image_size", "resize", "channels", "ten_crop", "in_memory")

Side = Annotated[int, Field(ge=1, le=4096)]  # pixels


def _size(meaning: str) -> Any:
    return declare(meaning, None, shown="all of the data set")


class DataSpec(Table):
    """Table [data]: the images. A size left out is the data set's own."""

    name: DataName = declare("data set: robustloss list datasets", "digits")
    train_size: Count | None = _size("training images, equal class shares")
    validation_size: Count | None = _size("validation images (thresholds)")
    test_size: Count | None = _size("test images, the ones that are attacked")
    label: str = declare("how reports call the data", "", shown="the name")
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
        "image_folder: folder with train/CLASS and test/CLASS, or a tar archive of one; relative "
        "to the spec, then to --data",
        None,
        shown="required by image_folder",
    )
    image_size: Side | None = declare(
        "image_folder: side in pixels of the square cut out of each image",
        None,
        shown="the images' own size",
    )
    resize: Side | None = declare(
        "image_folder: what the shorter side becomes before; crops of training are taken from "
        "this square",
        None,
        shown="image_size",
    )
    channels: Annotated[
        Literal[1, 3] | None, only("must be 1 or 3: grey or colour.", 1, 3, None)
    ] = declare(
        "image_folder: grey (1) or colour (3); other images are converted",
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
        "image_folder: keep the decoded images, or decode them for every batch; auto: keep what "
        "fits in a quarter of the memory",
        "auto",
        kind='true | false | "auto"',
    )

    @model_validator(mode="after")
    def complete_label(self) -> Self:
        """Call the data by their name, unless the spec says otherwise."""
        if "label" not in self.model_fields_set:
            self._complete({"label": self.name})
        if not (self.label.isprintable() and self.label.strip() and len(self.label) <= MAX_LABEL):
            self._refuse("label", f"must be one line of 1 to {MAX_LABEL} characters.")
        return self

    @model_validator(mode="after")
    def check_folder(self) -> Self:
        """Refuse keys of image_folder for other data, and those that do not go together."""
        if self.name != "image_folder":
            for name in _FOLDER_KEYS:
                default = type(self).model_fields[name].default
                if name in self.model_fields_set and getattr(self, name) != default:
                    self._refuse(name, _FOLDER_ONLY.format(self.name))
            return self
        if self.folder is None:
            self._refuse("folder", _FOLDER_MISSING)
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

    name: DataName = declare(f"which images: {', '.join(OUTSIDE_SETS)}", example="fashion_mnist")
    images: Count = declare("how many of them at most, spread evenly", 2000)
    folder: Name | None = declare(
        "image_folder: any folder of images, or a tar archive of one; relative to the spec, then "
        "to --data",
        None,
        shown="required by image_folder",
    )

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Refuse what is neither a data set nor another source of images."""
        if name not in OUTSIDE_SETS:
            raise rule_error(choice_rule(name, OUTSIDE_SETS))
        return name

    @model_validator(mode="after")
    def check_folder(self) -> Self:
        """Ask image_folder for its folder, and refuse one for other images."""
        if self.name == "image_folder" and self.folder is None:
            self._refuse("folder", _FOLDER_MISSING)
        if self.name != "image_folder" and self.folder is not None:
            self._refuse("folder", _FOLDER_ONLY.format(self.name))
        return self
