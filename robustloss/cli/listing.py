"""What can be named in a spec, and a spec in full: the text behind `list` and `show`."""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustloss.notation import eps_text, one_line
from robustloss.spec.data import DATASET_SUMMARIES, OPEN_SUMMARIES, DataSpec, summary_of
from robustloss.spec.errors import SpecError, choice_rule
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.plugins import describe_plugins, plugins_of
from robustloss.spec.prefixes import canonical_name, is_plugin
from robustloss.spec.spec import Spec
from robustloss.spec.text import literal, to_toml

if TYPE_CHECKING:
    from robustloss.data.images import Dataset

ARCHIVES = (
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.xz",
    ".txz",
    ".tar.bz2",
    ".tbz2",
)  # of a folder of images
KINDS = ("losses", "attacks", "scores", "datasets", "backbones", "specs", "metrics", "references")


def entries(kind: str) -> dict[str, str]:
    """Return each name of a kind with its meaning in one line.

    Args:
        kind: One of KINDS.
    """
    if kind == "losses":
        from robustloss.losses import LOSSES

        others = {
            "pml:NAME": "a loss of pytorch-metric-learning that has get_logits, as "
            "pml:ArcFaceLoss; its own parameters; needs the extra 'pml'",
            "criterion:SOURCE:NAME": "a criterion of logits and labels on a linear layer, as "
            "criterion:torch.nn:CrossEntropyLoss or criterion:file.py:NAME; its own parameters",
        }
        return _documented(LOSSES) | others
    if kind == "attacks":
        from robustloss.attacks import ATTACKS

        torchattacks = {
            "torchattacks:NAME": "an attack of torchattacks with an L-inf or L2 budget, or of "
            "minimum norm; its own parameters"
        }
        return _documented(ATTACKS) | torchattacks
    if kind == "scores":
        from robustloss.analysis.detection.scores import SCORES

        return _documented(SCORES)
    if kind == "backbones":
        from robustloss.models.backbones import BACKBONES

        libraries = {
            "torchvision:NAME": "any classifier of torchvision, untrained without weights",
            "timm:NAME": "any model of timm, likewise; extra timm",
        }
        return _documented(BACKBONES) | libraries
    if kind == "metrics":
        from robustloss.analysis.gates.metrics import describe_metrics

        return describe_metrics()
    if kind == "references":
        from robustloss.runs.references.find import describe_references

        return describe_references()
    if kind == "datasets":
        return DATASET_SUMMARIES | OPEN_SUMMARIES
    texts = {name: path.read_text("utf-8") for name, path in shipped_specs().items()}
    return {name: _first_line(text).lstrip("# ") for name, text in texts.items()}  # a comment


def all_entries() -> Iterator[str]:
    """Yield the lines of every list, each under its kind."""
    for kind in KINDS:
        found = entries(kind)
        width = max((len(name) for name in found), default=0)
        yield f"{kind}:"
        yield from (f"  {name:{width}}  {meaning}" for name, meaning in found.items())
        yield ""


def data_lines(spec: Spec, *, plugins: bool = False) -> Iterator[str]:
    """Yield what the data of a spec are: sizes, classes, checksum, place; nothing is trained.

    Args:
        spec: Whose [data] to read.
        plugins: Whether code that makes the data may be executed.

    Raises:
        DataError: The data are absent, which fetches nothing, or damaged; or code makes them, which
            is not allowed.
    """
    from robustloss.data import load
    from robustloss.data.files import DataError

    if is_plugin(spec.data.name) and not plugins:
        raise DataError(
            f"data.name (={spec.data.name!r}) is the spec's own code, which would be executed. If "
            "you trust it: show --data --plugins."
        )
    yield from describe_data(
        load.load_dataset(spec.data, near=spec.folder, download=False, quiet=True)
    )


def describe_data(data: "Dataset") -> Iterator[str]:
    """Yield what a data set is, in lines of a name and what is said of it."""
    yield f"{data.name}: {summary_of(data.name)}"
    yield f"  train       {data.train.n:,} images to learn from"
    yield f"  validation  {data.validation.n:,} images for the thresholds of detection"
    yield f"  test        {data.test.n:,} images to attack"
    channels, height, width = data.image_shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    levels = int(data.train.scale) + 1
    yield f"  images      {height} x {width} pixels, {colour}, {levels} levels a channel"
    counts = data.class_counts
    named = [f"{name} ({n:,})" for name, n in zip(data.class_names, counts, strict=True)]
    more = f", and {len(named) - 20} more" if len(named) > 20 else ""
    yield f"  classes     {len(named)}, with training images: {', '.join(named[:20])}{more}"
    yield f"  checksum    {data.checksum}, of the images, labels and order of the three sets"
    yield f"  files       {data.files or 'none: a package that robustloss needs brings them'}"
    if data.summary:
        yield f"  remark      {data.summary}"


def find_data(name: str) -> tuple[DataSpec, Path]:
    """Return the table [data] that a word on the command line stands for, and its folder.

    Args:
        name: A data set as data.name takes it; an .npz; a folder of images or of
            parquet files; or a spec.

    Raises:
        SpecError: It is none of these.
    """
    from robustloss.data.brought.hugging_face import has_tables

    path, known = Path(name), canonical_name(name, DATASET_SUMMARIES)
    if known in DATASET_SUMMARIES or is_plugin(known) or known.startswith("torchvision:"):
        return _data_spec({"name": known}), Path.cwd()
    if path.suffix == ".npz":
        return _data_spec({"name": "arrays", "file": name}), Path.cwd()
    if path.is_dir() and has_tables(path):
        return _data_spec({"name": "hugging_face", "folder": name}), Path.cwd()
    if path.is_dir() or name.lower().endswith(ARCHIVES):
        return _data_spec({"name": "image_folder", "folder": name}), Path.cwd()
    if path.suffix == ".py":
        raise SpecError(f"{name} is code: name its function too, as {name}:{path.stem}.")
    if path.suffix.lower() in (".parquet", ".arrow"):
        raise SpecError(f"{name} is one file of a data set: name its folder, as {path.parent}.")
    if path.suffix != ".toml" and canonical_name(name, shipped_specs()) not in shipped_specs():
        raise SpecError(
            f"NAME (={name}) {choice_rule(name, [*DATASET_SUMMARIES, *OPEN_SUMMARIES])}"
        )
    spec = load_spec(name)
    return spec.data, spec.folder


def _data_spec(keys: Mapping[str, str]) -> DataSpec:
    """Return the table [data] with these keys; what is wrong with them is told as of a spec."""
    losses, attacks = [{"name": "softmax"}], [{"name": "fgsm", "eps": [0.1]}]
    return load_spec({"name": "data", "data": keys, "losses": losses, "attacks": attacks}).data


def check_lines(spec: DataSpec, near: Path, sheet: Path, root: Path | None) -> Iterator[str]:
    """Yield what a data set is and what is odd in it, and draw some images of each class.

    Args:
        spec: Which data.
        near: The folder in which relative names begin.
        sheet: The picture that is written.
        root: The folder with the data sets; see load_dataset.

    Raises:
        DataError: They are absent, damaged, or no data set.
    """
    from robustloss.data import examine, load

    data = load.load_dataset(spec, near=near, root=root)
    yield from describe_data(data)
    mean, std = (", ".join(f"{value:.4f}" for value in each) for each in (data.mean, data.std))
    yield f"  mean        {mean} of the training pixels in [0, 1], a number for each channel"
    yield f"  std         {std}"
    found = list(examine.find_oddities(data))
    yield from (f"  odd         {text}" for text in found)
    if not found:
        yield "  odd         nothing: no equal images in two sets or classes, no empty image"
    examine.draw_sheet(data, sheet)
    yield f"  pictures    {sheet}, {examine.COLUMNS} training images of each class"


def _documented(table: Mapping[str, Any]) -> dict[str, str]:
    return {name: _first_line(item.__doc__ or "") for name, item in table.items()}


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def spec_lines(spec: Spec, *, plugins: bool = False) -> Iterator[str]:
    """Yield a spec with all defaults, as TOML that can be run; then, as comments, cells and cost.

    The cost comes last, because timing takes seconds. A spec that names code of its own has none,
    unless `plugins` allows it: timing would execute that code, and looking at somebody else's spec
    runs nothing of it.

    Args:
        spec: What to show.
        plugins: Whether code that the spec names may be executed.

    Raises:
        SpecError: The spec names something that its builder refuses.
        DataError: No such data set, or sizes that it does not have.
    """
    yield to_toml({key: _write_eps(value, key) for key, value in spec.as_written().items()})
    # A name of several lines would go on as keys of the spec, which is shown to be trusted.
    yield from map(one_line, _comments(spec, plugins))


def _write_eps(value: object, key: str) -> object:
    """Return plain values of a spec in which each eps stands as a person writes it: "8/255"."""
    if isinstance(value, Mapping):
        inner = {k: v if k == "params" else _write_eps(v, k) for k, v in value.items()}
        return inner  # what a plug-in calls eps is its own affair
    if isinstance(value, list | tuple):
        return [_write_eps(item, key) for item in value]
    if key == "eps" and isinstance(value, float):
        text = eps_text(value)
        return text if "/" in text and float(Fraction(text)) == value else value
    return value


def _comments(spec: Spec, plugins: bool) -> Iterator[str]:
    cells = spec.cells()
    yield f"# {len(cells)} cells (losses x seeds)"
    if trials := spec.trials():
        each = max(trial.number for trial in trials)
        yield f"# {len(trials)} trials, {each} a loss, with seed {spec.seeds[0]}, come first"
    width = max(len(loss.label) for loss in spec.losses)
    for cell in cells:
        if cell.seed != spec.seeds[0]:
            continue
        loss, train = cell.loss, cell.train
        network = f"{cell.model.backbone}, {cell.model.feature_dim}-D features"
        if loss.factory:
            text = f"given: {loss.factory}" + (f", {loss.weights}" if loss.weights else "")
        elif loss.weights:
            text = f"given: {loss.weights}; {network}"
        else:
            own = "".join(f"; {key} = {literal(value)}" for key, value in loss.train.items())
            text = f"seeds {', '.join(map(str, spec.seeds))}; {network}; {train.epochs} epochs, "
            text += f"batch {train.batch_size}, {train.optimizer}{own}"
        yield f"#   {cell.label:{width}}  {text}"
    if not plugins and (named := plugins_of(spec)):
        code = describe_plugins(named)
        yield f"# No estimate of the cost: it would execute the spec's own code, {code}."
        yield "# If you trust it: show --plugins."
        return
    for line in cost_lines(spec):
        yield f"# {line}"


def cost_lines(spec: Spec, root: Path | None = None) -> Iterator[str]:
    """Yield what a run will cost: images, passes, bytes and a rough time.

    Timing takes seconds and executes whatever code the spec names.

    Args:
        spec: What is run.
        root: The folder with the data sets; see load_dataset.

    Raises:
        SpecError: The spec names something that its builder refuses.
        DataError: No such data set, or sizes that it does not have.
    """
    from robustloss.cli import cost, terminal
    from robustloss.data import catalogue, load
    from robustloss.data.files import AbsentError, DataError
    from robustloss.progress import duration
    from robustloss.runs.preflight import check_names

    data, cells = spec.data, spec.first_trial.cells()
    try:
        dataset = load.load_dataset(data, near=spec.folder, root=root, download=False, quiet=True)
    except DataError as error:
        # Absent data have no cost yet. What would still be wrong once they are there is a mistake.
        sizes = catalogue.find_source(data).sizes
        absent = isinstance(error, AbsentError)
        beyond = any((getattr(data, f"{name}_size") or 0) > whole for name, whole in sizes.items())
        if beyond or (not sizes and not absent):
            raise
        fetched = " before `robustloss run` downloads the data" if sizes and absent else ""
        yield f"No estimate of the cost{fetched}: {error}"
        return
    check_names(spec, cells, dataset)
    parts = (dataset.train.n, dataset.validation.n, dataset.test.n)
    work = cost.count(spec, cells, parts, math.prod(dataset.image_shape), dataset.num_classes)
    yield "Cost to expect"
    yield f"  training  {work.training_images:,} images forward and backward"
    yield f"  attacks   {work.attacked_images:,} adversarial images"
    width = max(len(attack.label) for attack in spec.attacks)
    for attack in spec.attacks:
        if spent := cost.known_passes(spec, attack):
            yield (
                f"    {attack.label:{width}}  an image at most {spent.forward:,} passes forward, "
                f"{spent.backward:,} back"
            )
    yield f"  disk      about {terminal.bytes_text(work.disk)} of records, and the weights"
    timing = cost.measure(spec, cells, dataset)
    time = "unknown" if timing.seconds is None else f"about {duration(timing.seconds)}"
    yield f"  time      {time}: {timing.note}"
