"""The commands, and `main`, which is the entry point.

A command parses its words, calls what Python calls too, prints what came of it, and returns the
exit status: 0 done; 1 finished, but cells of a run or checks of a loss failed; 2 the user's
mistake, in a few lines on stderr; 130 interrupted. Heavy modules are imported inside the commands,
so that help and mistakes come at once.
"""

import io
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from robustloss import __version__
from robustloss.notation import one_line, printable

if TYPE_CHECKING:
    from robustloss.results.run import Run
    from robustloss.runs.runner import RunOutcome
    from robustloss.spec.spec import Spec

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

# typer brings its own copy of click or uses the installed one, depending on its version.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="robustloss",
    add_completion=False,
    rich_markup_mode=None,  # plain help: four times faster, and no colour codes in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


SpecName = Annotated[str, Argument(metavar="SPEC", help="a TOML file or a shipped spec's name")]
Data = Annotated[str | None, Option(metavar="DIR", help="where the data sets lie")]


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, Option("--version", help="Show the version.")] = False,
) -> int:
    """Train one network with different losses, attack each, and report what happens.

    First steps: `robustloss run quickstart`, then open the report that it names.
    """
    if version:
        print(f"robustloss {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
    return DONE


@app.command()
def run(
    spec: SpecName,
    out: Annotated[
        str | None, Option(metavar="DIR", help="run folder  [default: runs/NAME]")
    ] = None,
    device: Annotated[str, Option(metavar="auto|cpu|cuda|mps")] = "auto",
    data: Data = None,
    seeds: Annotated[
        str | None, Option(metavar="0,1,2", help="instead of the spec's; may extend a run")
    ] = None,
    executor: Annotated[str, Option(metavar="serial|processes:N|ray[:ADDRESS]")] = "serial",
    reuse: Annotated[
        str | None, Option(metavar="RUN", help="take equal trained weights from this run")
    ] = None,
    no_plugins: Annotated[
        bool, Option("--no-plugins", help="Refuse a spec that names code of its own.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", help="Print the report's path only.")] = False,
) -> int:
    """Train, attack and report what a spec asks for. Goes on where an earlier run stopped.

    Exit status: 0 when everything was computed; 1 when cells failed and have no numbers; 2 for a
    mistake in the spec or the command; 130 when interrupted. It tells whether the run is whole, not
    whether a model is robust: high errors and marked numbers end with 0 too.
    """
    wanted = _parse_seeds(seeds)
    loaded = _load_spec(spec)
    from robustloss.progress import choose_progress
    from robustloss.runs import runner
    from robustloss.training import processes

    try:
        with showing_spec_mistakes():
            outcome = runner.run(
                loaded,
                out=out,
                device=device.casefold(),
                data=data,
                seeds=wanted,
                executor=executor,
                reuse=reuse,
                plugins=not no_plugins,
                progress=choose_progress(quiet),
            )
    except processes.LeaderStoppedError:
        return DONE  # a process that fails makes torchrun end the first, which is still telling why
    except processes.BrokenGroupError as error:
        _complain(f"{error} Finished work is kept; run the command again to go on.")
        return FAILED
    if not processes.is_leader():
        return DONE  # as above: the first process alone tells, and decides the status
    _show_outcome(outcome, quiet)
    return FAILED if outcome.failures else DONE


def _show_outcome(outcome: "RunOutcome", quiet: bool) -> None:
    """Print the result, where the report is, and which cells failed."""
    if quiet:
        _say(outcome.report)
    else:
        _show_result(outcome.path)
        _say_where(outcome.report)
    _complain_of(outcome.failures, "run the command again to try the rest.")


def _complain_of(failures: list[dict], remedy: str) -> None:
    """Print which cells have no numbers, why, and what to do about it."""
    from robustloss.runs.executors.queue import NOT_BEGUN

    cells: dict[tuple[str, str], list[str]] = {}  # by stage and reason
    for failure in failures:
        same = cells.setdefault((failure["stage"], failure["reason"]), [])
        same.append(f"{failure['label']} seed {failure['seed']}")
    for (stage, reason), names in cells.items():
        told = f"failed: {', '.join(names)} ({stage}): {reason}"
        if stage == NOT_BEGUN:
            told = f"not begun: {', '.join(names)}, because {reason}"
        _complain(one_line(told))
    if cells:
        _complain(
            f"Exit status {FAILED} means this: what failed has no numbers. What is done is kept; "
            f"{remedy}"
        )


def _parse_seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() and int(part) < 2**32 for part in parts):
        raise MistakeError(
            f"--seeds (={text}) must be whole numbers from 0 to {2**32 - 1}, separated by commas. "
            "Write --seeds 0,1,2."
        )
    seeds = tuple(int(part) for part in parts)
    if len(set(seeds)) < len(seeds):
        raise MistakeError(f"--seeds (={text}) names a seed twice. Remove one.")
    return seeds


@app.command()
def report(
    run: Annotated[str, Argument(metavar="RUN", help="a run folder, such as runs/mnist")],
    everything: Annotated[
        bool, Option("--all", help="Also draw the figures under Details, in details.html.")
    ] = False,
    figure: Annotated[
        str | None,
        Option("--figure", metavar="FILE", help="Draw one figure only, such as roc-fgsm.pdf."),
    ] = None,
    page: Annotated[
        bool, Option("--page", help="Write a page of Markdown and its figures to FILE instead.")
    ] = False,
    file: Annotated[
        str | None, Argument(metavar="FILE", help="of --page, RUN/report/page.md by default")
    ] = None,
) -> int:
    """Render the report of a run, finished or not; needs no torch."""
    if file is not None and not page:
        raise MistakeError(
            f"report: FILE (={file}) goes with --page only. Add it, or leave FILE out."
        )
    if page and (figure is not None or everything):
        raise MistakeError("report: --page goes without --all and --figure. Name one of them.")
    from robustloss.analysis.unfinished import open_run

    with showing_mistakes(ValueError):
        loaded = open_run(run)
    for text in loaded.unfinished:
        _complain(one_line(f"unfinished: {text}"))
    for doubt in loaded.doubts:
        _complain(one_line(f"warning: {doubt}"))
    if page:
        from robustloss.reports.page.gallery import write_gallery_page

        with showing_mistakes(ValueError):
            _say(f"Page: {write_gallery_page(loaded, file)}")
        return DONE
    if figure is None:
        _render_report(loaded, everything=everything)
        return DONE
    from robustloss.reports.page.build import draw_figure

    with showing_mistakes(ValueError):
        _say(f"Figure: {draw_figure(loaded, figure)}")
    return DONE


@app.command()
def show(
    spec: Annotated[
        str | None, Argument(metavar="SPEC", help="a TOML file or a shipped spec's name")
    ] = None,
    keys: Annotated[
        bool, Option("--keys", help="Every key of a spec: type, default, meaning.")
    ] = False,
    data: Annotated[
        bool, Option("--data", help="Its data: counts, sizes, classes, checksum, where they lie.")
    ] = False,
    plugins: Annotated[
        bool, Option("--plugins", help="Load the spec's own code to time it.")
    ] = False,
) -> int:
    """Show a spec in full, its cells, and the cost to expect.

    It prints a spec that runs: `robustloss show mnist > mine.toml` is where one of yours begins.
    """
    if keys:
        from robustloss.cli.terminal import console, keys_table
        from robustloss.spec.load import key_table

        console().print(keys_table(key_table()))
        return DONE
    if spec is None:
        raise MistakeError("show: name a SPEC, or use --keys for every key of a spec.")
    loaded = _load_spec(spec)
    from robustloss.cli.listing import data_lines, spec_lines

    with showing_spec_mistakes():
        show_lines = data_lines if data else spec_lines
        for line in show_lines(loaded, plugins=plugins):
            _say(line)
    return DONE


@app.command("list")
def list_(
    what: Annotated[
        str | None,
        Argument(metavar="losses|attacks|scores|datasets|backbones|specs", help="all by default"),
    ] = None,
) -> int:
    """List what can be named in a spec, one line each."""
    from robustloss.cli.listing import KINDS, all_entries, entries

    if what is None:
        for line in all_entries():
            print(line)
        return DONE
    what = what.casefold()
    if what not in KINDS:
        near = get_close_matches(what, KINDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise MistakeError(f"list (={what}) must be one of {', '.join(KINDS)}{hint}")
    found = entries(what)
    width = max(len(name) for name in found)
    for name, meaning in found.items():
        print(f"{name:{width}}  {meaning}")
    return DONE


@app.command("check-loss")
def check_loss(
    name: Annotated[
        str, Argument(metavar="NAME", help="a loss: softmax, module:Class or file.py:Class")
    ],
) -> int:
    """Check that a loss keeps the contract of a loss head."""
    return FAILED if _check_loss(name, {}) else DONE


@app.command("check-data")
def check_data(
    name: Annotated[
        str,
        Argument(
            metavar="NAME",
            help="a data set, an .npz, a folder of images, file.py:function, or a spec",
        ),
    ],
    sheet: Annotated[
        str | None, Option(metavar="FILE", help="where the pictures go  [default: NAME-data.png]")
    ] = None,
    data: Data = None,
) -> int:
    """Show a data set: counts, pictures, oddities.

    It executes a function that makes the images.
    """
    from robustloss.cli.listing import check_lines, find_data
    from robustloss.data.files import DataError
    from robustloss.spec.text import slug

    with showing_spec_mistakes(DataError, OSError):
        spec, folder = find_data(name)
        path = Path(sheet or f"{slug(spec.label) or 'images'}-data.png")
        for line in check_lines(spec, folder, path, None if data is None else Path(data)):
            _say(one_line(line))
    return DONE


def _check_loss(name: str, params: dict[str, Any], *, only_failures: bool = False) -> int:
    """Check a loss with some parameters, print the outcome, and return how many checks failed."""
    from robustloss.losses.contract import check as contract
    from robustloss.runs.errors import RunError
    from robustloss.runs.executors.alone import call_alone, check_loss_alone
    from robustloss.spec.losses import LOSS_LABELS
    from robustloss.spec.prefixes import canonical_name, is_plugin

    name = canonical_name(name, LOSS_LABELS)
    with showing_mistakes(ValueError, RunError):
        if is_plugin(name):  # whatever it does to its process, such as ending it, is told
            checks = call_alone(check_loss_alone, name, params, foreign={"loss": name})
        else:
            checks = contract.check_loss(name, **params)
    first_with: dict[str, str] = {}  # reason of a failure -> the first check that it fails
    for check in checks:
        first = check.name if check.passed else first_with.setdefault(check.detail, check.name)
        detail = f": {check.detail}" if check.detail else ""
        if first != check.name:
            detail = f": as '{first}'"
        if not (check.passed and only_failures):
            _say(f"{'pass' if check.passed else 'FAIL'}  {check.name}{detail}")
    failed = sum(not check.passed for check in checks)
    if failed or not only_failures:
        _say(f"{name}: {len(checks) - failed} of {len(checks)} checks passed")
    if failed > 1:
        print("Mend the first FAIL first: the others may follow from it.")
    return failed


@app.command("try")
def try_(
    loss: Annotated[
        str, Argument(metavar="FILE:CLASS", help="your loss, or any that a spec can name")
    ],
    against: Annotated[
        str,
        Option(metavar="SPEC|RUN", help="whose losses it stands beside; a finished run is reused"),
    ] = "quickstart",
    label: Annotated[str | None, Option(help="what tables call it  [default: the class]")] = None,
    param: Annotated[
        list[str] | None, Option(metavar="KEY=VALUE", help="its own parameter; may be repeated")
    ] = None,
    train: Annotated[
        list[str] | None,
        Option(metavar="KEY=VALUE", help="key of [train] for it alone; may be repeated"),
    ] = None,
    out: Annotated[
        str | None, Option(metavar="DIR", help="result folder  [default: runs/try-LABEL-RUN]")
    ] = None,
    device: Annotated[str, Option(metavar="auto|cpu|cuda|mps")] = "auto",
    data: Data = None,
    executor: Annotated[str, Option(metavar="serial|processes:N|ray[:ADDRESS]")] = "serial",
    quiet: Annotated[bool, Option("--quiet", help="Print the report's path only.")] = False,
) -> int:
    """Put a loss of your own beside the losses of a run, in one table.

    It is checked as by check-loss, trained and attacked as the others were, and compared with each.
    The run of the others is not changed. Run it again after an edit: only your loss is trained.
    """
    params, keys = _parse_pairs("--param", param or []), _parse_pairs("--train", train or [])
    from robustloss.cli import trying
    from robustloss.progress import choose_progress
    from robustloss.reports import build_report
    from robustloss.runs.beside import compute_try, plan_try
    from robustloss.runs.comparable import NotComparableError
    from robustloss.storage import CorruptFile

    with showing_mistakes(ValueError), showing_spec_mistakes():
        plan = plan_try(loss, against, label=label, params=params, train=keys, out=out)
    if not quiet:
        _say(f"Checking the contract of {loss}.")
    if _check_loss(loss, params, only_failures=True):
        return FAILED
    with showing_spec_mistakes(NotComparableError, CorruptFile):
        if not quiet:
            trying.show_plan(plan, data)
        shown = choose_progress(quiet)
        tried = compute_try(plan, device=device, data=data, executor=executor, progress=shown)
        report = None if tried.path is None else build_report(tried.path)
    if report is not None and quiet:
        _say(report)
    elif report is not None:
        for note in tried.notes:
            _say(one_line(f"Note: {note}"))
        _show_result(plan.out)
        trying.show_differences(plan.out, plan.label)
        _say_where(report)
    remedy = "run the command again to try the rest."
    if any(each["label"] == plan.label and each["stage"] == "train" for each in tried.failures):
        remedy = (
            f"to train {plan.label} otherwise, add --train KEY=VALUE to the command: train.lr = "
            "0.01 is written --train lr=0.01."
        )
    _complain_of(tried.failures, remedy)
    return FAILED if tried.failures else DONE


def _parse_pairs(option: str, words: list[str]) -> dict[str, Any]:
    """Return values by name; a value is read as TOML where it is that, else as text."""
    import tomllib

    what, example = "parameter", "scale=16.0"
    if option == "--train":
        what, example = "key of [train]", "max_grad_norm=1.0"
    pairs: dict[str, Any] = {}
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not key.isidentifier():
            raise MistakeError(
                f"{option} (={word}) must be KEY=VALUE with the name of a {what}. Write for "
                f"example {option} {example}."
            )
        if key in pairs:
            raise MistakeError(f"{option} (={word}) names {key} a second time. Remove one.")
        try:
            pairs[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            pairs[key] = text
    return pairs


@app.command()
def new(
    kind: Annotated[str, Argument(metavar="loss|attack|score|data")],
    name: Annotated[str, Argument(metavar="NAME", help="a Python name: my_loss gives my_loss.py")],
) -> int:
    """Write a loss, attack, score or data set that works as it is."""
    from robustloss.cli.starters import write_starter

    kind = kind.casefold()
    with showing_mistakes(ValueError):
        path, own = write_starter(kind, name)
    plugin = f"{path}:{own}"
    _say(f"Wrote {path} with the {kind} {own}.".replace("the data", "the data set"))
    if kind == "loss":
        _say(f"Check it:     robustloss check-loss {plugin}\nTry it out:   robustloss try {plugin}")
        return DONE
    if kind == "attack":
        _say(f'Add to a spec beside it:\n  [[attacks]]\n  name = "{plugin}"\n  eps = [0.1]')
    elif kind == "data":
        _say(f"Look at it:   robustloss check-data {plugin}")
        _say(f'Name it in a spec beside it:\n  [data]\n  name = "{plugin}"')
    else:
        _say(f'Add "{plugin}" to the scores under [detection] in a spec beside it.')
    _say(f"A spec to begin with:   robustloss show quickstart > {name}.toml")
    _say(f"Then run it:            robustloss run {name}.toml --out runs/{name}")
    return DONE


@app.command()
def compare(
    runs: Annotated[list[str], Argument(metavar="RUN RUN...", help="finished run folders")],
    out: Annotated[str | None, Option(metavar="DIR", help="Folder of the merged run.")] = None,
    other_networks: Annotated[
        bool, Option("--other-networks", help="Merge runs of different networks too.")
    ] = False,
) -> int:
    """Merge losses and seeds of several runs into one report.

    An attack or a loss of two runs counts as one where it is the same with all defaults filled in,
    whatever it is called.
    """
    from robustloss.runs.merge import merge_runs

    folder = out or str(Path(runs[0]).parent / "-and-".join(Path(run).name for run in runs))
    with showing_mistakes(ValueError):
        merged = merge_runs(runs, folder, other_networks=other_networks)
    for note in merged.notes:
        _say(one_line(f"Note: {note}"))
    _render_report(merged.path)
    return DONE


@app.command()
def schema() -> int:
    """Print the JSON Schema of results.json, with the meaning of every column."""
    import json

    from robustloss.results.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return DONE


@app.command()
def guide(
    topic: Annotated[
        str | None, Argument(metavar="TOPIC", help="a page; without one, the list of all")
    ] = None,
) -> int:
    """Print a page of the guide, or the list of its pages."""
    from robustloss.cli.guide import list_topics, read_page

    if topic is not None:
        with showing_mistakes(ValueError):
            print(read_page(topic), end="")
        return DONE
    topics = list_topics()
    width = max(map(len, topics))
    for name, title in topics.items():
        print(f"{name:{width}}  {title}")
    print("\nRead one with: robustloss guide TOPIC")
    return DONE


@app.command()
def cite() -> int:
    """Print the BibTeX of this tool and of the paper that it starts from."""
    from robustloss.cli.guide import BIBTEX

    print(BIBTEX)
    return DONE


class MistakeError(Exception):
    """What the user did wrong, in the words to show."""


@contextmanager
def showing_mistakes(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into mistakes of the user, which `main` shows by their text."""
    try:
        yield
    except kinds as error:
        raise MistakeError(str(error)) from error


@contextmanager
def showing_spec_mistakes(*more: type[Exception]) -> Iterator[None]:
    """Show as mistakes whatever is wrong with a spec, its data or how it is run.

    What a loss warns of becomes a line on stderr, without the place in the source.

    Args:
        more: Further errors that are mistakes.
    """
    from robustloss.attacks.plugins import PluginError
    from robustloss.data.files import DataError
    from robustloss.losses.feasibility import LossWarning
    from robustloss.runs.errors import RunError
    from robustloss.spec.errors import SpecError

    kinds: tuple[type[Exception], ...] = (SpecError, DataError, PluginError, RunError, *more)
    with showing_mistakes(*kinds), warnings.catch_warnings():
        warnings.simplefilter("always", LossWarning)
        plain = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, LossWarning):
                _complain(f"warning: {message}")
            else:
                plain(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _load_spec(name: str) -> "Spec":
    from robustloss.spec.errors import SpecError
    from robustloss.spec.load import load_spec

    with showing_mistakes(SpecError):
        return load_spec(name)


def _render_report(run: "Path | Run", *, everything: bool = False) -> None:
    """Render the report of a run, or of the run in a folder; print the result and its place."""
    from robustloss.reports import build_report
    from robustloss.storage import CorruptFile

    with showing_mistakes(CorruptFile):
        written = build_report(run, everything=everything)
    _show_result(run)
    _say_where(written)


def _show_result(run: "Path | Run") -> None:
    from robustloss.cli.terminal import print_result
    from robustloss.results.run import load_run

    print_result(load_run(run) if isinstance(run, Path) else run)


def _say_where(report: Path) -> None:
    """Print where the report is, and what else of it there is."""
    parts = {"Tables": "tables", "Figures": "figures", "Details": "details.html"}
    for what, name in (parts | {"Summary": "summary.md"}).items():
        if (path := report.parent / name).exists():
            _say(f"{what}: {path}")
    _say(f"Report: {report}")


def _say(text: object) -> None:
    """Print what may hold somebody else's words, escaped, on stdout."""
    print(printable(str(text)), flush=True)


def _complain(text: str) -> int:
    """Print a line on stderr, escaped; return the exit status of a mistake."""
    print(printable(text), file=sys.stderr, flush=True)
    return MISTAKE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit status.

    Args:
        arguments: The words after the program's name; those of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a log in ASCII shows ? where it lacks a letter
            stream.reconfigure(errors="replace")

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def format_printable(*warning: Any, **more: Any) -> str:
        return printable(format_plain(*warning, **more))

    # SIGTERM ends a run as Ctrl-C does: between two steps, and with a word how to go on.
    before = signal.signal(signal.SIGTERM, interrupt)
    format_plain = warnings.formatwarning
    warnings.formatwarning = format_printable  # a warning may quote somebody else's label
    try:
        status = _status(words)
    finally:
        signal.signal(signal.SIGTERM, before)
        warnings.formatwarning = format_plain
    sys.exit(status)


def _status(words: list[str]) -> int:
    """Run a command and return its exit status; what the user did wrong is said on stderr."""
    try:
        Path.cwd()  # torch ends the process, without a word, where the folder is gone
    except OSError as error:
        return _complain(
            f"The working folder cannot be used: {error.strerror}. Change to another folder."
        )
    try:
        status = app(args=words, prog_name="robustloss", standalone_mode=False)
    except MistakeError as mistake:
        return _complain(str(mistake))
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "robustloss"
        message = getattr(error, "message", "") or error.format_message()
        if near := getattr(error, "possibilities", None):
            message = f"{message.rstrip('.')}; did you mean '{near[0]}'?"
        elif not isinstance(error, typer.BadParameter):
            message = error.format_message()
        return _complain(f"{command}: {message}\nTry '{command} --help'.")
    except OSError as error:
        from robustloss.storage import explain_disk_full, is_disk_full

        if is_disk_full(error):
            return _complain(explain_disk_full(error))
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}.")
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        return _complain("There is too little memory: end other programs, or raise its limit.")
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED:
        goes_on = words[:1] in (["run"], ["try"])
        hint = f" Finished work is kept; go on with: {_program()} {shlex.join(words)}"
        _complain(f"Interrupted.{hint if goes_on else ''}")
    return status if isinstance(status, int) else DONE


def _program() -> str:
    """Return what starts the command again: torchrun too, for its threads decide the keys."""
    here, everywhere = (os.environ.get(f"{each}WORLD_SIZE", "1") for each in ("LOCAL_", ""))
    if "TORCHELASTIC_RUN_ID" not in os.environ or everywhere == "1":
        return "robustloss"
    several = "" if here == everywhere else "--nnodes ... --rdzv-endpoint ... "
    return f"torchrun {several}--nproc-per-node {here} -m robustloss"
