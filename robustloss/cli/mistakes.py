"""The user's mistakes: which errors count as such, and how they reach `main`, which shows them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustloss.cli.saying import complain


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
                complain(f"warning: {message}")
            else:
                plain(message, category, *place, **more)

        warnings.showwarning = show
        yield


def write_named(option: str, name: str, text: str) -> None:
    """Write a file that the user names; /dev/stdout and a pipe are written to, not replaced.

    Raises:
        MistakeError: it cannot be written.
    """
    from robustloss.storage import is_disk_full, write_text

    path = Path(name)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_text(text, encoding="utf-8")
        else:
            write_text(path, text)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise MistakeError(
            f"{option} (={name}) cannot be written: {error.strerror}. Name another file."
        ) from error
