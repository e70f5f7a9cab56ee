"""Files of weights, damaged and forged: loaded, or refused in words; nothing of them runs.

    python -m tests.fuzz_weights COUNT [--seed 0] [--first 0]

Works in the working folder, under the guard, and prints JSON: what happened, and what must not.
"""

import argparse
import json
import random
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from robustloss.models.weight_files import load_weights, read_weights
from tests.guard import BrokenOut, Guard
from tests.spoiled import damaged

SECONDS, BYTES = 30, 4 * 2**30  # for one file
ODD = {
    "shape": torch.zeros(2, 2),
    "nan": torch.full((4,), float("nan")),
    "bool": torch.zeros(4, dtype=torch.bool),
    "int": torch.zeros(4, dtype=torch.int64),
    "complex": torch.zeros(4, dtype=torch.complex64),
    "half": torch.zeros(4).half(),
    "sparse": torch.eye(4).to_sparse(),
    "meta": torch.zeros(4, device="meta"),
    "expanded": torch.zeros(1).expand(4),
    "list": [torch.zeros(4)],
    "table": {"a": {"b": {}}},
    "text": "x",
    "none": None,
}
KEYS = ("0.weight", "1.running_mean", "new", 1, None, ("0", "bias"), "module.0.weight", "x" * 9999)


def forge(rng: random.Random, state: dict) -> object:
    """A state dict with other keys and values, in what training programs put around one."""
    for _ in range(rng.randint(0, 2)):
        state[rng.choice(KEYS)] = rng.choice(list(ODD.values()))
    renamed = {f"_orig_mod.{key}": value for key, value in state.items()}
    around = {"model": state, "optimizer": {"state": {}}, "epoch": 3}
    return rng.choice([state, state, {"state_dict": state}, renamed, around, [state], ODD["nan"]])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    whole = {key: value.clone() for key, value in module.state_dict().items()}
    case = Path("case")
    case.mkdir()
    for suffix, save in (("pt", torch.save), ("safetensors", safetensors.torch.save_file)):
        save(whole, case / f"whole.{suffix}")  # both once: all that is needed is imported
        load_weights(module, read_weights(case / f"whole.{suffix}"), suffix)
    guard = Guard([case])
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))

    def ring(number: int, frame: object) -> None:
        raise TimeoutError("hangs")

    signal.signal(signal.SIGALRM, ring)
    told: Counter[str] = Counter()
    faults, slowest = [], 0.0
    for number in range(words.first, words.first + words.count):
        rng = random.Random(f"{words.seed} {number}")
        path = case / f"w.{rng.choice(['safetensors', 'pt', 'pth'])}"
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(whole, path)
        else:
            torch.save(forge(rng, dict(whole)), path)
        if rng.random() < 0.5:
            path.write_bytes(damaged(path.read_bytes(), rng))
        began, problem = time.monotonic(), ""
        signal.alarm(SECONDS)
        guard.armed = True
        try:
            load_weights(module, read_weights(path), path.name)
            told["loaded"] += 1
        except ValueError as error:
            told["refused"] += 1
            problem = "" if 0 < len(str(error)) < 2000 else f"a message of {len(str(error))}"
        except BrokenOut as error:
            problem = str(error)
        except BaseException:
            problem = traceback.format_exc()[-1200:]
        finally:
            guard.armed = False
            signal.alarm(0)
        slowest = max(slowest, time.monotonic() - began)
        faults += [f"{number} {path.suffix}: {problem}"] if problem else []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({**told, "faults": faults, "MB": memory, "seconds": slowest}))


if __name__ == "__main__":
    main()
