"""Tables [resources] and [records]: what a cell asks of a cluster, its time, what it keeps."""

from pydantic import field_validator

from robustloss.spec.base import Table, declare
from robustloss.spec.errors import rule_error


class ResourcesSpec(Table):
    """Table [resources]: what one cell asks of a Ray cluster, and how long it may take anywhere."""

    cpus: int = declare("executor ray: CPU cores, so torch threads, a cell", 1, ge=1, le=1024)
    gpus: float = declare("executor ray on CUDA: share of a GPU a cell takes", 1.0, gt=0, le=1)
    retries: int = declare(
        "executors processes and ray: new starts of a cell whose process or node died",
        3,
        ge=0,
        le=100,
    )
    split: int | None = declare(
        "test images of a part, so that several workers attack one cell; a multiple of "
        "attacks[].batch_size; none: a cell is one piece of work",
        None,
        ge=1,
    )
    minutes: float | None = declare(
        "a cell, or a part of one, that takes longer has failed, and the others go on; none: no "
        "limit",
        None,
        gt=0,
        le=1e6,
    )


MOST_PICTURES = 64  # images that every record holds; results.records says why
ALL, WORST = "all", "worst"


class RecordsSpec(Table):
    """Table [records]: which attacked images are kept beside the records."""

    images: int | str = declare(
        "attacked images to keep: the first so many of each attack and eps; all of them; or of "
        "all attacks together the worst, image by image",
        MOST_PICTURES,
        kind=f'"{ALL}", "{WORST}" or integer >= {MOST_PICTURES}',
    )

    @field_validator("images", mode="before")
    @classmethod
    def check_images(cls, images: object) -> object:
        """Take a word in any case, or a number that is not below what records hold anyway."""
        if isinstance(images, str) and images.strip().casefold() in (ALL, WORST):
            return images.strip().casefold()
        if type(images) is int and images >= MOST_PICTURES:
            return images
        more = ""
        if type(images) is int:
            more = f" Every record holds the first {MOST_PICTURES}: leave the key out."
        elif isinstance(images, str) and images.strip().isdecimal():
            more = f" Write {images.strip()}, without quotes."
        raise rule_error(
            f'must be "{ALL}", "{WORST}" or a whole number of images, {MOST_PICTURES} or '
            f"more.{more}"
        )
