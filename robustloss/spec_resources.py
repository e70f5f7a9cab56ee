"""Table [resources] of a spec: what one cell may take. It names no file."""

from pydantic import Field

from robustloss.spec_tables import Table


class ResourcesSpec(Table):
    """Table [resources]: what one cell asks of a Ray cluster, and how long it may take anywhere."""

    cpus: int = Field(
        default=1, ge=1, le=1024, description="executor ray: CPU cores, so torch threads, a cell"
    )
    gpus: float = Field(
        default=1.0, gt=0, le=1, description="executor ray on CUDA: share of a GPU a cell takes"
    )
    retries: int = Field(
        default=3,
        ge=0,
        le=100,
        description="executors processes and ray: new starts of a cell whose process or node died",
    )
    split: int | None = Field(
        default=None,
        ge=1,
        description="test images of a part, so that several workers attack one cell; a multiple of "
        "attacks[].batch_size; none: a cell is one piece of work",
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="a cell, or a part of one, that takes longer has failed, and the others go on; "
        "none: no limit",
    )
