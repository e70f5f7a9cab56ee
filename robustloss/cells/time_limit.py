"""A limit on the time that a piece of work may take, by the operating system's alarm."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds until the alarm rings once more: code may have caught the first error with all others.
_AGAIN = 5.0


class TimeLimitError(ValueError):
    """The work took longer than it may."""


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """End the block with an error once the minutes are over.

    The error comes between two steps of Python, so it cannot end a library that never returns.
    Without alarms (Windows), and outside a process's main thread, there is no limit.

    Args:
        minutes: Above 0; None sets no limit.

    Raises:
        TimeLimitError: The time is over.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if minutes is None or not in_main or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeLimitError(
            f"took longer than resources.minutes (={minutes:g}). Raise it, or look for what hangs; "
            "run the command again to go on from the last checkpoint."
        )

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
