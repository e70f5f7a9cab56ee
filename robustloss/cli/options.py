"""Words of the command line that several commands take, and how they are read."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from robustloss.cli.mistakes import MistakeError, showing_mistakes

if TYPE_CHECKING:
    from robustloss.spec.spec import Spec

SpecName = Annotated[str, Argument(metavar="SPEC", help="a TOML file or a shipped spec's name")]
RunFolder = Annotated[str, Argument(metavar="RUN", help="a run folder, such as runs/mnist")]
Data = Annotated[str | None, Option(metavar="DIR", help="where the data sets lie")]
Device = Annotated[str, Option(metavar="auto|cpu|cuda|mps")]
Executor = Annotated[str, Option(metavar="auto|serial|processes:N|ray[:ADDRESS]")]
Beside = Annotated[
    str | None,
    Option(
        metavar="REFERENCE",
        help="show a reference's losses too: a name of `list references` or a file of `baseline`",
    ),
]
Log = Annotated[
    str | None, Option(metavar="FILE.jsonl", help="add every event to FILE as a line of JSON")
]
Quiet = Annotated[bool, Option("--quiet", help="Print the report's path only.")]


def load_named_spec(name: str) -> "Spec":
    """Load the spec that a word names; what is wrong with it is the user's mistake."""
    from robustloss.spec.errors import SpecError
    from robustloss.spec.load import load_spec

    with showing_mistakes(SpecError):
        return load_spec(name)


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """Return the seeds of "0,1,2"; None for None, which leaves those of the spec."""
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


def parse_pairs(option: str, words: list[str]) -> dict[str, Any]:
    """Return values by name; a value is read as TOML where it is that, else as text."""
    import tomllib

    what, example = {
        "--train": ("key of [train]", "max_grad_norm=1.0"),
        "--tolerance": ("metric", "error=0.01"),
    }.get(option, ("parameter", "scale=16.0"))
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
