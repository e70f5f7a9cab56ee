"""The commands that prove: `export` writes kept images, `verify` checks a run, or images."""

from typing import Annotated

from typer import Argument, Option

from robustloss.cli.mistakes import showing_mistakes
from robustloss.cli.options import Data, Device, RunFolder
from robustloss.cli.saying import DONE, FAILED, say

Loss = Annotated[str | None, Option(metavar="LABEL", help="whose model, if the run has several")]
Seed = Annotated[int | None, Option(metavar="SEED", help="which training of the loss")]
Plugins = Annotated[
    bool, Option("--plugins", help="Execute code of the run's author that makes data or models.")
]
Norm = Annotated[str | None, Option(metavar="linf|l2|l1", help="if there are several")]


def export(
    run: RunFolder,
    attack: Annotated[
        str,
        Option(metavar="worst-case|LABEL", help="which attack; [records] of the spec keeps images"),
    ],
    loss: Loss = None,
    seed: Seed = None,
    eps: Annotated[
        str | None, Option(metavar="EPS", help="such as 0.1 or 8/255, if there are several")
    ] = None,
    norm: Norm = None,
    format_: Annotated[str, Option("--format", metavar="npz|pt|png")] = "npz",
    out: Annotated[
        str | None, Option(metavar="FILE|DIR", help="must not exist  [default: named after these]")
    ] = None,
    data: Data = None,
    plugins: Plugins = False,
) -> int:
    """Write the images that a run has kept, for others to check."""
    from robustloss.cli.terminal import bytes_text
    from robustloss.runs.proof.export import export as write
    from robustloss.storage import digest_file

    with showing_mistakes(ValueError):
        path = write(
            run, attack, loss=loss, seed=seed, eps=eps, norm=norm,
            format=format_.casefold(), out=out, data=data, allow_plugins=plugins,
        )  # fmt: skip
    if path.is_file():
        say(f"Images: {path} ({bytes_text(path.stat().st_size)}, sha256 {digest_file(path)})")
    else:
        size = sum(each.stat().st_size for each in path.iterdir())
        say(f"Images: {path} ({bytes_text(size)})")
    return DONE


def verify(
    run: RunFolder,
    images: Annotated[
        str | None,
        Argument(metavar="IMAGES", help="an .npz, a .pt or a folder of PNG, for one model"),
    ] = None,
    loss: Loss = None,
    seed: Seed = None,
    norm: Annotated[
        str | None, Option(metavar="linf|l2|l1", help="of the ball  [default: what IMAGES says]")
    ] = None,
    eps: Annotated[
        str | None, Option(metavar="EPS", help="radius of the ball  [default: what IMAGES says]")
    ] = None,
    data: Data = None,
    device: Device = "auto",
    files: Annotated[
        bool, Option("--files", help="Load no model and no data: files and numbers only.")
    ] = False,
    plugins: Plugins = False,
) -> int:
    """Check that a run is what it says, or that IMAGES fool a model of it.

    Failures are printed in full and at once, what passed in a line for each cell at the end.

    Exit status: 0 when nothing failed, 1 when something did, 2 for what cannot be read.
    """
    from robustloss.runs.errors import RunError
    from robustloss.runs.proof.verify import verify as check

    with showing_mistakes(ValueError, RunError):
        found = check(
            run, images, loss=loss, seed=seed, norm=norm, eps=eps, data=data,
            device=device.casefold(), files_only=files, allow_plugins=plugins,
            tell=lambda finding: say(finding) if finding.state == "fail" else None,
        )  # fmt: skip
    for line in (*found.condense(), found.summary):
        say(line)
    return FAILED if found.failures else DONE
