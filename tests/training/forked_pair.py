"""Two processes as torchrun would start them, forked from one that has imported everything.

    python -m tests.training.forked_pair

Reads lines of JSON, a script and its arguments each, lets two processes run it, and answers with
their exit status by rank and what they said on stderr. As torchrun does, it stops the other process
when one has failed. What a fork saves is the import of torch: most of the time of a small run.
"""

import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
from importlib import import_module

os.environ["OMP_NUM_THREADS"] = "1"  # a fork of a process with running threads would wait for ever

from robustloss.cli import commands  # noqa: F401  (loaded here, each fork has it already)
from robustloss.reports.page import build  # noqa: F401
from robustloss.runs import runner  # noqa: F401
from robustloss.runs.executors.server import PRELOADED
from robustloss.training import train  # noqa: F401

for module in PRELOADED:
    import_module(module)


def start(rank: int, port: int, words: list[str], said: int) -> int:
    """Fork one of the two processes; return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="forked",
        )  # fmt: skip
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_pair(words: list[str]) -> tuple[list[int], str]:
    """Run a script in two processes; return their exit status by rank, and what they said."""
    with socket.socket() as free, tempfile.TemporaryFile() as said:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        children = [start(rank, port, words, said.fileno()) for rank in range(2)]
        ended: dict[int, int] = {}
        while len(ended) < 2:
            child, status = os.wait()
            ended[child] = os.waitstatus_to_exitcode(status)
            if ended[child]:
                time.sleep(0.1)  # torchrun looks ten times a second
                for other in {*children} - {*ended}:
                    os.kill(other, signal.SIGTERM)
        said.seek(0)
        return [ended[child] for child in children], said.read().decode()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run_pair(json.loads(line))), flush=True)
