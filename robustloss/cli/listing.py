"""What can be named in a spec, and a spec in full: the text behind `list` and `show`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from robustloss.spec.data import DATASET_SUMMARIES
from robustloss.spec.load import shipped_specs
from robustloss.spec.plugins import listed, plugins_of
from robustloss.spec.spec import CellSpec, Spec
from robustloss.spec.text import literal, to_toml

KINDS = ("losses", "attacks", "scores", "datasets", "backbones", "specs")


def entries(kind: str) -> dict[str, str]:
    """Name -> one line of meaning, for everything of a kind.

    Args:
        kind: one of KINDS.
    """
    if kind == "losses":
        from robustloss.losses import LOSSES

        metric_learning = {
            "pml:NAME": "a loss of pytorch-metric-learning that has get_logits, as "
            "pml:ArcFaceLoss; its own parameters; needs the extra 'pml'"
        }
        return _documented(LOSSES) | metric_learning
    if kind == "attacks":
        from robustloss.attacks import ATTACKS

        torchattacks = {
            "torchattacks:NAME": "an attack of torchattacks with an L-inf or L2 budget, or of "
            "minimum norm; its own parameters"
        }
        return _documented(ATTACKS) | torchattacks
    if kind == "scores":
        from robustloss.analysis.detection.separation import SCORES

        return _documented(SCORES)
    if kind == "backbones":
        from robustloss.models.backbones import BACKBONES

        torchvision = {"torchvision:NAME": "any classification model of torchvision, untrained"}
        return _documented(BACKBONES) | torchvision
    if kind == "datasets":
        return DATASET_SUMMARIES
    return {name: _first_comment(path.read_text("utf-8")) for name, path in shipped_specs().items()}


def _documented(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: _first_line(item.__doc__ or "") for name, item in found.items()}


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def _first_comment(text: str) -> str:
    return _first_line(text).lstrip("# ")


def spec_lines(spec: Spec, *, plugins: bool = False) -> Iterator[str]:
    """The spec with all defaults, as TOML that can be run; then, as comments, cells and cost.

    The cost comes last, because timing takes seconds. It is left out of a spec that names code of
    its own, which would be executed, unless `plugins` allows that: looking at somebody else's spec
    runs nothing of it.

    Raises:
        SpecError: the spec names something that its builder refuses.
        DataError: no such data set, or sizes that it does not have.
    """
    yield to_toml(spec.plain())
    yield from _cell_lines(spec)
    if not plugins and (named := plugins_of(spec)):
        yield f"# No estimate of the cost: it would execute the spec's own code, {listed(named)}."
        yield "# If you trust it: show --plugins."
        return
    yield from _cost_lines(spec)


def _cell_lines(spec: Spec) -> Iterator[str]:
    cells = spec.cells()
    yield f"# {len(cells)} cells (losses x seeds)"
    if trials := spec.trials():
        each = max(trial.number for trial in trials)
        yield f"# {len(trials)} trials, {each} a loss, with seed {spec.seeds[0]}, come first"
    width = max(len(loss.label) for loss in spec.losses)
    for cell in (cell for cell in cells if cell.seed == spec.seeds[0]):
        seeds = ", ".join(map(str, spec.seeds))
        what = f"{cell.model.backbone}, {cell.model.feature_dim}-D features"
        if cell.loss.factory:
            yield f"#   {cell.label:{width}}  given: {cell.loss.factory}"
        elif cell.loss.weights:
            yield f"#   {cell.label:{width}}  given: {cell.loss.weights}; {what}"
        else:
            yield f"#   {cell.label:{width}}  seeds {seeds}; {what}; {_training(cell)}"


def _training(cell: CellSpec) -> str:
    train = cell.train
    changes = "".join(f"; {key} = {literal(value)}" for key, value in cell.loss.train.items())
    return f"{train.epochs} epochs, batch {train.batch_size}, {train.optimizer}{changes}"


def _cost_lines(spec: Spec) -> Iterator[str]:
    from robustloss.cli.cost import count, measure
    from robustloss.cli.terminal import bytes_text
    from robustloss.data.catalogue import DATASETS
    from robustloss.data.files import AbsentError, DataError
    from robustloss.data.load import load_dataset
    from robustloss.progress import duration
    from robustloss.runs.preflight import check_names

    data, cells = spec.data, spec.tried.cells()
    try:
        dataset = load_dataset(data, near=spec.folder, download=False, quiet=True)
    except DataError as error:
        folder_is_wrong = data.folder is not None and not isinstance(error, AbsentError)
        if folder_is_wrong or data.name not in DATASETS or any(_beyond(spec)):
            raise
        yield f"# No estimate of the cost: {error}"
        return
    check_names(spec, cells, dataset)
    parts = (dataset.train.n, dataset.validation.n, dataset.test.n)
    values = math.prod(dataset.image_shape)
    cost = count(spec, cells, parts, values, dataset.num_classes)
    yield "# Cost to expect"
    yield f"#   training  {cost.training_images:,} images forward and backward"
    yield f"#   attacks   {cost.attacked_images:,} adversarial images"
    yield from _attack_lines(spec)
    yield f"#   disk      about {bytes_text(cost.disk)} of records, and the weights"
    timing = measure(spec, cells, dataset)
    time = "unknown" if timing.seconds is None else f"about {duration(timing.seconds)}"
    yield f"#   time      {time}: {timing.note}"


def _attack_lines(spec: Spec) -> Iterator[str]:
    from robustloss.attacks import build_attack

    width = max(len(attack.label) for attack in spec.attacks)
    for attack in spec.attacks:
        built: Any = build_attack(attack.name, folders=(spec.folder,), **attack.params)
        if hasattr(built, "passes"):
            spent = built.passes(sum(eps > 0 for eps in attack.eps))
            yield (
                f"#     {attack.label:{width}}  an image at most {spent.forward:,} passes forward, "
                f"{spent.backward:,} back"
            )


def _beyond(spec: Spec) -> Iterator[bool]:
    """Whether a size in the spec is more than the data set has."""
    from robustloss.data.catalogue import DATASETS

    for name, whole in DATASETS[spec.data.name].sizes.items():
        size = getattr(spec.data, f"{name}_size")
        yield size is not None and size > whole
