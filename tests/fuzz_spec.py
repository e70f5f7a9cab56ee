"""Any specification at all, as a table or as text: read, or refused in words; under the guard.

python -m tests.fuzz_spec tables|text COUNT
"""

import json
import random
import sys
import tomllib
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.spec import Spec
from robustloss.spec.text import to_toml
from tests.guard import Guard, watched

JUNK = [
    *(None, True, False, 0, -1, 1, 10**30, -(10**30), 0.5, 1e308, -1e308),
    *(float("nan"), float("inf"), "", " ", "x", "0.1", "8/255", "1/0", "-1/3", "../../escape"),
    *("/etc/passwd", "a\0b", "\u202e", "<script>", "os:system", "no/such.py:Loss"),
    *("nan", "𝟙" * 300),
    *([], {}, [[]], [1, "a"], {"a": {"b": []}}, [{"name": "fgsm"}] * 3, {"name": "softmax"}),
]
WORDS = [b'"', b"[", b"]", b"[[", b"=", b"\n", b"\xff", b"\0", b"'''", b"{", b"1e999", b"#", b"."]


def places(value, path=()):
    """Every place in a tree of tables and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


def spoil(tables, rng):
    """Changes one to three places: another value, another key, gone, or twice."""
    for _ in range(rng.randint(1, 3)):
        found = list(places(tables))
        if not found:
            return
        *above, key = rng.choice(found)
        parent = tables
        for step in above:
            parent = parent[step]
        deed = rng.random()
        if deed < 0.6:
            parent[key] = deepcopy(rng.choice(JUNK))
        elif deed < 0.75:
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice(["name", "eps", "params", "train", "eval", str(key) + "s", ""])] = (
                deepcopy(rng.choice(JUNK)) if deed < 0.9 else parent.pop(key)
            )
        else:
            parent.append(deepcopy(rng.choice([parent[key], *JUNK])))


def judged(source):
    """Loads it; the message of a refusal, or nothing."""
    try:
        spec = load_spec(source)
    except SpecError as error:
        message = str(error)
        assert message.strip()
        assert "Traceback" not in message
        assert "pydantic" not in message.lower()
        assert len(message) < 20_000
        return message
    assert isinstance(spec, Spec)
    # What is accepted can be written down, and means the same when it is read again.
    assert spec.cells()
    assert load_spec(tomllib.loads(to_toml(spec.plain()))).plain() == spec.plain()
    return ""


@cache
def _shipped():
    return [tomllib.loads(path.read_text()) for path in shipped_specs().values()]


def changed_tables(rng):
    """Some shipped spec with values changed."""
    tables = deepcopy(rng.choice(_shipped()))
    spoil(tables, rng)
    if rng.random() < 0.1:
        tables.setdefault("losses", [])
        if isinstance(tables["losses"], list):
            tables["losses"].append({"name": "evil.py:Loss"})
    return tables


def changed_text(rng):
    """The file of some shipped spec with bytes changed."""
    text = bytearray(rng.choice([path.read_bytes() for path in shipped_specs().values()]))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text))
        deed = rng.random()
        if deed < 0.4:
            del text[at : at + rng.randint(1, 30)]
        elif deed < 0.8:
            text[at:at] = rng.choice(WORDS)
        else:
            text[at] = rng.randrange(256)
    path = Path("spec.toml")
    path.write_bytes(text)
    return path


def main(make: Callable, count: int) -> dict:
    """Judges so many; counts, and what went wrong."""
    Path("evil.py").write_text("open('ran', 'x')\nclass Loss: pass\n")
    for source in (_shipped()[0], {"name": "x", "lossess": [{"name": 3}]}):
        judged(source)  # what is loaded for the first time, is loaded before the guard listens
    rng, guard = random.Random(0), Guard()
    told = {"refused": 0, "accepted": 0, "faults": []}
    for number in range(count):
        source = make(rng)

        def work(source=source):
            told["refused" if judged(source) else "accepted"] += 1

        try:
            problem = watched(guard, work)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            told["faults"].append(f"number {number}: {problem}"[:500])
    told["files"] = sorted(path.name for path in Path().iterdir())
    return told


if __name__ == "__main__":
    makers = {"tables": changed_tables, "text": changed_text}
    print(json.dumps(main(makers[sys.argv[1]], int(sys.argv[2]))))
