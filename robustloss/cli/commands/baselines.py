"""`baseline`: a finished run as one small file that `check --baseline` reads."""

from pathlib import Path
from typing import Annotated

from typer import Option

from robustloss.cli.mistakes import MistakeError, showing_mistakes
from robustloss.cli.options import RunFolder
from robustloss.cli.saying import DONE, complain, say
from robustloss.notation import one_line


def baseline(
    run: RunFolder,
    out: Annotated[
        str | None, Option(metavar="FILE", help="the file  [default: NAME-baseline.npz]")
    ] = None,
) -> int:
    """Write a run into a small file, to check later runs.

    The file holds, image by image, which attacks fooled each loss, the scores of the detector and
    the radii, with the spec, the versions and the checksum of the data. Commit it with your
    project, then: robustloss check RUN --baseline FILE. Equal runs give equal bytes.
    """
    from robustloss.analysis.baseline.reduce import reduce_run
    from robustloss.results.compact.file import load_baseline, save_baseline
    from robustloss.results.run import load_run
    from robustloss.runs.judging.against import list_passes

    with showing_mistakes(ValueError):
        loaded = load_run(run)
        reduced = reduce_run(loaded)
    file = Path(out or f"{loaded.name}-baseline.npz")
    if file.is_dir():
        raise MistakeError(f"--out (={file}) is a folder. Name a file in it.")
    if file.exists():
        try:
            load_baseline(file)
        except ValueError:
            raise MistakeError(
                f"--out (={file}) exists and is no baseline. Name another file, or remove it."
            ) from None
    for row in loaded.failures:
        complain(one_line(f"left out: {row['label']} seed {row['seed']}, which failed."))
    for problem in loaded.readable_cells[1]:
        complain(one_line(f"left out: {problem}"))
    save_baseline(file, reduced)
    say(one_line(f"Baseline: {file} ({file.stat().st_size / 1e6:.2f} MB; {list_passes(reduced)})"))
    return DONE
