"""Table [data] of a spec: its keys, types, ranges, defaults and meanings."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from robustloss.spec.base import MAX_LABEL, Count, Name, Table, as_tuple, raise_at
from robustloss.spec.errors import rule_error

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

Share = Annotated[float, Field(gt=0, le=1)]


def _grey_or_colour(value: object) -> object:
    if value is not None and (type(value) is not int or value not in (1, 3)):
        raise rule_error("must be 1 or 3: grey or colour.")
    return value


def _yes_no_auto(value: object) -> object:
    if value != "auto" and not isinstance(value, bool):
        raise rule_error('must be true, false or "auto".')
    return value


def _default(table: type[BaseModel], key: str) -> object:
    return table.model_fields[key].default


def _all_images(meaning: str) -> Any:
    return Field(
        default=None,
        description=meaning,
        json_schema_extra={"shown_default": "all of the data set"},
    )


class DataSpec(Table):
    """Table [data]: the images. A size left out is the data set's own."""

    name: Name = Field(default="digits", description="data set: robustloss list datasets")
    train_size: Count | None = _all_images("training images, equal class shares")
    validation_size: Count | None = _all_images("validation images (thresholds)")
    test_size: Count | None = _all_images("test images, the ones that are attacked")
    label: str = Field(
        default="",
        description="how reports call the data",
        json_schema_extra={"shown_default": "the name"},
    )
    class_fractions: (
        Annotated[tuple[Share, ...], BeforeValidator(as_tuple), Field(min_length=1)] | None
    ) = Field(
        default=None,
        description="share of each class's training images that is kept, one number a class",
        examples=[(0.1, 1.0)],
        json_schema_extra={"shown_type": "list of numbers > 0, <= 1", "shown_default": "all 1"},
    )
    classes: (
        Annotated[
            tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=2)
        ]
        | None
    ) = Field(
        default=None,
        description="the classes that are learnt, numbered anew; the others are held out (for "
        "[[outside]])",
        examples=[(0, 1, 2, 3, 4)],
        json_schema_extra={"shown_type": "list of integers >= 0", "shown_default": "all"},
    )
    folder: Name | None = Field(
        default=None,
        description="image_folder: folder with train/CLASS and test/CLASS, or a tar archive of "
        "one; relative to the spec, then to --data",
        json_schema_extra={"shown_default": "required by image_folder"},
    )
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="image_folder: side in pixels of the square cut out of each image",
        json_schema_extra={"shown_default": "the images' own size"},
    )
    resize: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="image_folder: what the shorter side becomes before; crops of training are "
        "taken from this square",
        json_schema_extra={"shown_default": "image_size"},
    )
    channels: Annotated[Literal[1, 3] | None, BeforeValidator(_grey_or_colour)] = Field(
        default=None,
        description="image_folder: grey (1) or colour (3); other images are converted",
        json_schema_extra={"shown_type": "1 | 3", "shown_default": "3 if any image has colour"},
    )
    ten_crop: bool = Field(
        default=False,
        description="image_folder: also top-1 and top-5 error on ten crops of the test images",
    )
    in_memory: Annotated[bool | Literal["auto"], BeforeValidator(_yes_no_auto)] = Field(
        default="auto",
        description="image_folder: keep the decoded images, or decode them for every batch; auto: "
        "keep what fits in a quarter of the memory",
        json_schema_extra={"shown_type": 'true | false | "auto"'},
    )

    @model_validator(mode="after")
    def _default_label(self) -> Self:
        if "label" not in self.model_fields_set:
            object.__setattr__(self, "label", self.name)
        if not (self.label.isprintable() and self.label.strip() and len(self.label) <= MAX_LABEL):
            raise_at("label", self.label, f"must be one line of 1 to {MAX_LABEL} characters.")
        return self

    @model_validator(mode="after")
    def _folder_keys(self) -> Self:
        if self.name == "image_folder":
            if self.folder is None:
                raise_at("folder", None, "must be given: image_folder reads the folder it names.")
            self._check_crops()
            return self
        for key in ("folder", "image_size", "resize", "channels", "ten_crop", "in_memory"):
            if key in self.model_fields_set and getattr(self, key) != _default(DataSpec, key):
                rule = f'is for name = "image_folder" only, not {self.name!r}. Remove it.'
                raise_at(key, getattr(self, key), rule)
        return self

    def _check_crops(self) -> None:
        if self.resize is not None and self.resize < (self.image_size or self.resize + 1):
            size = self.image_size
            rule = "needs image_size, the side that is cut out of the resized image."
            if size is not None:
                rule = f"must be at least image_size (={size}), which is cut out of it."
            raise_at("resize", self.resize, rule)
        if self.ten_crop and (self.resize or 0) <= (self.image_size or 0):
            rule = "needs resize larger than image_size: the ten crops are cut out of that square."
            raise_at("ten_crop", True, rule)
