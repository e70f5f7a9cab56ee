"""A program `robustloss` for lines of a shell, which the process of the tests answers.

A process of its own would import torch for every line of a script.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PROGRAM = """\
#!{python} -IS
import os, sys
from multiprocessing.connection import Client
with Client({address!r}) as pipe:
    pipe.send((os.getcwd(), sys.argv[1:]))
    status, out, err = pipe.recv()
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""


def answering(program: Path, command: Callable[..., tuple], work: Callable[[], T]) -> T:
    """Do a piece of work in a thread, and meanwhile here what it asks of a program.

    Args:
        program: Is written; who starts it gets what `command` gives for its words.
        command: The fixture.
        work: Starts the program, as often as it likes, from whatever folder.

    Returns:
        What the work returns.
    """
    with Listener() as listener, ThreadPoolExecutor(1) as pool:
        program.write_text(PROGRAM.format(python=sys.executable, address=listener.address))
        program.chmod(0o755)

        def tell_end(_: object) -> None:
            with Client(listener.address) as pipe:
                pipe.send(None)

        done = pool.submit(work)
        done.add_done_callback(tell_end)
        while True:
            with listener.accept() as pipe:
                if (asked := pipe.recv()) is None:
                    return done.result()
                folder, words = asked
                with chdir(folder):
                    pipe.send(command(*words))
