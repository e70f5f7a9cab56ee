"""Table [resources]: what one cell asks of a cluster, and how long it may take."""

from robustloss.spec.base import Table, declare


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
