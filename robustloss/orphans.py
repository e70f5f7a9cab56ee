"""Ending with the parent process: a parent that was killed tells its children nothing."""

import multiprocessing
import os
import threading
from multiprocessing import connection


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone; returns at once.

    Else workers would wait for work for ever, and until then compute beside the run that goes on.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
