"""The commands, and `main`, which is the entry point.

Each module here holds one command or a few that belong together. A command parses its words, calls
what Python calls too, prints what came of it, and returns the exit status: 0 done; 1 finished, but
cells of a run or checks of a loss failed; 2 the user's mistake, in a few lines on stderr; 130
interrupted. Heavy modules are imported inside the commands, so that help and mistakes come at once.

A new command is a module here, or a function in one, and a line of `_COMMANDS`.
"""

import io
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from robustloss import __version__
from robustloss.cli.commands import (
    again,
    baselines,
    checking,
    gating,
    looking,
    proving,
    referencing,
    reporting,
    running,
    starting,
    trying,
)
from robustloss.cli.mistakes import MistakeError
from robustloss.cli.saying import DONE, INTERRUPTED, complain
from robustloss.notation import printable

_COMMANDS: dict[str, Callable[..., int]] = {  # as help lists them
    "run": running.run,
    "report": reporting.report,
    "show": looking.show,
    "list": looking.list_,
    "check-loss": checking.check_loss,
    "check-data": checking.check_data,
    "try": trying.try_,
    "new": starting.new,
    "compare": reporting.compare,
    "baseline": baselines.baseline,
    "check": gating.check,
    "reference": referencing.reference,
    "rerun": again.rerun,
    "export": proving.export,
    "verify": proving.verify,
    "schema": looking.schema,
    "guide": looking.guide,
    "cite": looking.cite,
}

# typer brings its own copy of click or uses the installed one, depending on its version.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="robustloss",
    add_completion=False,
    rich_markup_mode=None,  # plain help: four times faster, and no colour codes in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


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
        return complain(
            f"The working folder cannot be used: {error.strerror}. Change to another folder."
        )
    try:
        status = app(args=words, prog_name="robustloss", standalone_mode=False)
    except MistakeError as mistake:
        return complain(str(mistake))
    except _UsageError as error:
        named = f"robustloss {words[0]}" if words[0] in _COMMANDS else "robustloss"
        command = error.ctx.command_path if error.ctx else named
        message = getattr(error, "message", "") or error.format_message()
        if near := getattr(error, "possibilities", None):
            message = f"{message.rstrip('.')}; did you mean '{near[0]}'?"
        elif not isinstance(error, typer.BadParameter):
            message = error.format_message()
        return complain(f"{command}: {message}\nTry '{command} --help'.")
    except OSError as error:
        from robustloss.storage import explain_disk_full, is_disk_full

        if is_disk_full(error):
            return complain(explain_disk_full(error))
        if error.filename is None:
            raise
        return complain(f"{error.filename}: {error.strerror}.")
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        return complain("There is too little memory: end other programs, or raise its limit.")
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED:
        goes_on = words[:1] in (["run"], ["try"])
        hint = f" Finished work is kept; go on with: {_program(words)} {shlex.join(words)}"
        complain(f"Interrupted.{hint if goes_on else ''}")
    return status if isinstance(status, int) else DONE


def _program(words: Sequence[str] = ()) -> str:
    """Return what starts the command again: torchrun too, for its threads decide the keys."""
    here, everywhere = (os.environ.get(f"{each}WORLD_SIZE", "1") for each in ("LOCAL_", ""))
    if "TORCHELASTIC_RUN_ID" not in os.environ or everywhere == "1":
        return "robustloss"
    several = "" if here == everywhere else "--nnodes ... --rdzv-endpoint ... "
    ours = " --" if "--log" in words else ""  # torchrun has options that begin so
    return f"torchrun {several}--nproc-per-node {here} -m robustloss{ours}"
