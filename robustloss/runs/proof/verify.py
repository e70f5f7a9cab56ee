"""`verify`: is a run what it says, or what do somebody's images do to its models?"""

from collections.abc import Callable, Iterator
from pathlib import Path

from robustloss.notation import NORM_NAMES
from robustloss.results.run import Run, from_folder_on, load_run
from robustloss.runs.classifier import load_classifier
from robustloss.runs.proof.brought import check_brought
from robustloss.runs.proof.choose import UntoldError, choose_cell, load_data, read_eps
from robustloss.runs.proof.files import check_cell_files, check_results, name_cell
from robustloss.runs.proof.findings import Finding, Verification
from robustloss.runs.proof.image_input import open_brought
from robustloss.runs.proof.outputs import check_outputs
from robustloss.runs.proof.rebuild import check_cell_tables, check_run_tables
from robustloss.runs.settings import choose_device
from robustloss.seeding import using_repeatable_kernels
from robustloss.storage import CorruptFile

Tell = Callable[[Finding], None]


def verify(
    run: str | Path | Run,
    images: str | Path | None = None,
    *,
    loss: str | None = None,
    seed: int | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    files_only: bool = False,
    allow_plugins: bool = False,
    tell: Tell = lambda finding: None,
) -> Verification:
    """Check a run against its own files, model and data; or images of any origin against a model.

    Without images: (1) results.json and every file of every cell have the digests that are stated
    of them; (2) the tables of each cell.json are what its records give, and results.json is what
    the cells give, within 1e-6 of each number; (3) the model of each cell, loaded anew, says of the
    clean images and of all attacked images that are stored what the records hold, within 1e-3 of
    an image's largest logit, and these lie in [0,1] and in their balls, within 1e-6. What an older
    version did not store cannot be told, and is no failure.

    With images: how many of them fool one model, and whether they keep to box and ball.

    Args:
        run: A run folder.
        images: A file or folder that `robustloss.export` wrote, or of any origin: an .npz or a .pt
            with "images", (N,C,H,W) in [0,1] or uint8, and "labels" or "indices", (N,) integers,
            the positions of the originals in the test file of the data; or a folder of PNG files.
        loss: With images, whose model: a label in any case; needed where the run has several.
        seed: With images, of that model.
        norm: With images, "linf", "l2" or "l1"; by default what the file says.
        eps: With images, the radius of the ball, as 0.1 or "8/255"; by default what the file says.
        data: The folder with the data sets; nothing is fetched.
        device: "auto", "cpu", "cuda" or "mps".
        files_only: Leave out (3): neither model nor data are loaded.
        allow_plugins: Whether to execute code of the run's author that makes data or a model.
        tell: Called with each finding as it is made.

    Returns:
        True when all is well. It prints what failed in full, and a line for each cell that passed;
        its `findings` are all that was looked at.

    Raises:
        ValueError: No run folder; or images, loss, seed, norm or eps that cannot be used.

    Example:
        >>> assert robustloss.verify("runs/mnist"), "the run is not what it says"
    """
    path = run.path if isinstance(run, Run) else Path(run)
    if images is not None:
        if files_only:
            raise ValueError("--files (files_only) loads no model. Leave it out, or IMAGES.")
        findings, fooled = _verify_images(
            load_run(path), images, loss, seed, norm, eps, data, device, allow_plugins
        )
        for each in findings:
            tell(each)
        return Verification(tuple(findings), fooled)
    for name, value in {"loss": loss, "seed": seed, "norm": norm, "eps": eps}.items():
        if value is not None:
            raise ValueError(
                f"{name} (={value}) goes with images only. Name them, or leave it out."
            )
    findings = []
    for each in _verify_run(path, data, choose_device(device), files_only, allow_plugins):
        findings.append(each)
        tell(each)
    return Verification(tuple(findings))


def _verify_run(
    path: Path, data: str | Path | None, device: str, files_only: bool, allow_plugins: bool
) -> Iterator[Finding]:
    """Yield what is found of a run, the cheapest first; arguments as for `verify`."""
    try:
        run = load_run(path)
    except CorruptFile as error:
        yield Finding("results.json", "fail", from_folder_on(path, error))
        return
    yield from check_results(run)
    cells, problems = run.readable_cells
    for cell in cells:
        yield from check_cell_files(run, cell)
    for cell in cells:
        yield from check_cell_tables(run, cell)
    if not problems:
        yield from check_run_tables(run)
    if files_only:
        return
    try:
        dataset = load_data(run, data, allow_plugins=allow_plugins)
    except UntoldError as error:
        yield Finding("images and models", "open", str(error))
        return
    except ValueError as error:
        yield Finding("data", "fail", str(error))
        return
    yield Finding("data", "pass", f"{dataset.name} with the checksum of the run, loaded anew")
    with using_repeatable_kernels():
        for cell in cells:
            yield from check_outputs(run, cell, dataset, device=device, allow_plugins=allow_plugins)


def _verify_images(
    run: Run,
    images: str | Path,
    loss: str | None,
    seed: int | None,
    norm: str | None,
    eps: float | str | None,
    data: str | Path | None,
    device: str,
    allow_plugins: bool,
) -> tuple[list[Finding], dict]:
    """Return what is found of images, and how many fool the model; arguments as for `verify`."""
    brought, cell, radius = open_brought(images), choose_cell(run, loss, seed), read_eps(eps)
    if norm is not None and norm not in NORM_NAMES:
        raise ValueError(f"norm (={norm}) must be one of {', '.join(NORM_NAMES)}.")
    try:
        dataset = load_data(run, data, allow_plugins=allow_plugins)
    except UntoldError as error:
        raise ValueError(
            f"{run.path}: no images can be held against it, because {error}. Without "
            "IMAGES its files and numbers are verified."
        ) from error
    model = load_classifier(run.path, loss=cell.label, seed=cell.seed, allow_plugins=allow_plugins)
    with using_repeatable_kernels():
        return check_brought(
            brought,
            model.to(choose_device(device)),
            dataset,
            name_cell(cell),
            cell.weights,
            norm=norm,
            eps=radius,
        )
