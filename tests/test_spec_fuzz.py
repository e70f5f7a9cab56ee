"""Any specification at all, as a table or as text: read, or refused in words."""

import builtins
import os
import random
import tomllib
from copy import deepcopy

import pytest

from robustloss.spec import Spec, load_spec, shipped_specs
from robustloss.spec_errors import SpecError
from robustloss.spec_text import to_toml

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


@pytest.fixture
def nothing_is_run(monkeypatch, tmp_path):
    """Fails where code of the spec is imported, or a file is written."""
    before = builtins.open

    def reading(file, mode="r", *rest, **keys):
        assert not set(mode) & set("wax+"), f"{file} was opened to be written"
        return before(file, mode, *rest, **keys)

    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'x')\nclass Loss: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "open", reading)
    yield
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.py"]


def test_changed_tables(nothing_is_run):
    rng = random.Random(0)
    whole = [tomllib.loads(path.read_text()) for path in shipped_specs().values()]
    refused = accepted = 0
    for _ in range(1500):
        tables = deepcopy(rng.choice(whole))
        spoil(tables, rng)
        if rng.random() < 0.1:
            tables.setdefault("losses", [])
            if isinstance(tables["losses"], list):
                tables["losses"].append({"name": "evil.py:Loss"})
        if judged(tables):
            refused += 1
        else:
            accepted += 1
    assert refused > 500
    assert accepted > 50


def test_changed_text(tmp_path_factory, nothing_is_run):
    rng = random.Random(1)
    whole = [path.read_bytes() for path in shipped_specs().values()]
    path = tmp_path_factory.mktemp("text") / "spec.toml"
    for _ in range(500):
        text = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            deed = rng.random()
            if deed < 0.4:
                del text[at : at + rng.randint(1, 30)]
            elif deed < 0.8:
                text[at:at] = rng.choice(WORDS)
            else:
                text[at] = rng.randrange(256)
        _written(path, bytes(text))
        judged(path)


def _written(path, content):
    """Past the guard on open."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(handle, content)
    os.close(handle)
