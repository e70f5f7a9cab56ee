"""All who hear of a run, as one: its events reach each of them, and no one of them ends it."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustloss.notation import one_line
from robustloss.progress import Bars, Event, Lines, Progress, Silent, show_note
from robustloss.runs.watching.log import VERSION, RunLog
from robustloss.runs.watching.own import OwnFailedError, OwnProgress

Watcher = Progress | Callable[[Event], None] | str
"""A progress, a class of one, a function of an event, or the name of one of these."""


class Audience:
    """Who hears of a run. It is a `Progress` itself.

    Displays of ours are started and stopped around the cells, all others around the whole run: see
    `begin` and `close`.

    Args:
        watchers: What `robustloss.run` takes as progress; none shows nothing.
        log: The log.

    Raises:
        PluginError: A watcher of somebody's own cannot be loaded or made.
    """

    def __init__(self, watchers: Watcher | Sequence[Watcher] | None, log: RunLog | None) -> None:
        if watchers is None or isinstance(watchers, str) or not isinstance(watchers, Sequence):
            watchers = () if watchers is None else (watchers,)
        self._shown: list[Lines | Bars | Silent] = []
        self._own: list[OwnProgress] = []
        for each in watchers:
            if type(each) in (Lines, Bars, Silent):
                self._shown.append(each)  # type: ignore[arg-type]
            else:
                self._own.append(OwnProgress(each))
        self.silent = all(isinstance(each, Silent) for each in self._shown)
        self._log = log
        self._began = False

    def begin(self, cells: int) -> None:
        """Tell those that are no displays of ours how many cells the run has."""
        if not self._began:
            self._began = True
            self._tell_own("its start", lambda own: own.start(cells))

    def start(self, cells: int) -> None:
        """Start the displays: the cells begin."""
        self.begin(cells)
        for each in self._shown:
            each.start(cells)

    def __call__(self, event: Event) -> None:
        """Pass an event on to everybody."""
        for each in self._shown:
            each(event)
        if self._log is not None:
            try:
                self._log(event)
            except OSError as error:
                path, self._log = self._log.path, None
                self.say(
                    f"The log {path} cannot be written any more: {error.strerror}. The run goes on "
                    "without it."
                )
        what = f"'{event.name}'" if event.name else f"an event of {event.cell}"
        self._tell_own(what, lambda own: own(event))

    def tell(self, name: str, values: Mapping[str, Any]) -> None:
        """Pass on that something happened to the run as a whole.

        Args:
            name: See `Event`.
            values: Likewise.
        """
        self(Event("", "note", name=name, values=values))

    def note(self, text: str) -> None:
        """Show a line of text beside the progress, where there is any."""
        for each in self._shown:
            show_note(each, text)
        self._tell_own("a note", lambda own: own.note(text))

    def say(self, text: str) -> None:
        """Show a line of text that must be seen, on stderr where no display shows it; log it."""
        text = one_line(text)
        if self.silent:
            print(text, file=sys.stderr, flush=True)
        self.note(text)
        self.tell("warning", {"text": text})

    def stop(self) -> None:
        """Take the displays off the screen: the cells are over."""
        for each in self._shown:
            each.stop()

    def close(self) -> None:
        """Tell all others that the run is over, and close the log."""
        self._tell_own("its stop", lambda own: own.stop())
        self._own = []
        if self._log is not None:
            self._log.close()

    def _tell_own(self, what: str, call: Callable[[OwnProgress], None]) -> None:
        """Call each watcher of somebody's own; leave one out that fails, and say so.

        Args:
            what: Names the call, for the message.
            call: Makes it.
        """
        for own in tuple(self._own):
            try:
                if own in self._own:  # else it failed while another's failure was said
                    call(own)
            except OwnFailedError as error:
                self._own.remove(own)
                self.say(
                    f"Progress {own.name} failed at {what}: {error}. It hears no more; the run "
                    "goes on."
                )


@contextmanager
def gathering(
    watchers: Watcher | Sequence[Watcher] | None,
    log: str | Path | None,
    cells: int,
    facts: Mapping[str, Any],
) -> Iterator[Audience]:
    """Gather who hears of a run; tell them of its start, its warnings, and of an end by an error.

    Args:
        watchers: What `robustloss.run` takes as progress.
        log: File of the log.
        cells: How many cells the run has.
        facts: What the log says of the run first; "name" is the spec's.

    Raises:
        LogError: The log cannot be used.
        PluginError: A watcher of somebody's own cannot be loaded or made.
    """
    file = None if log is None else RunLog(log, facts["name"])
    try:
        audience = Audience(watchers, file)
    except BaseException:
        if file is not None:
            file.close()
        raise
    audience.begin(cells)
    audience.tell("run_started", {**facts, "cells": cells, "log_version": VERSION})
    plain = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        plain(message, category, *place, **more)
        audience.tell("warning", {"text": one_line(str(message))})

    warnings.showwarning = show
    try:
        yield audience
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted" if interrupted else " ".join(str(error).split())
        told = {"status": 130 if interrupted else 2, "reason": reason or type(error).__name__}
        audience.tell("run_finished", told)
        raise
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = plain
        audience.close()
