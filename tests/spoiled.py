"""Files of a run folder, changed as chance does and as somebody who means harm would.

The second kind is sealed: its digests fit, so that the content itself must be refused.
"""

import copy
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy

HTML = "<script>alert(31337)</script>"
EVIL = "evil.py:Loss"
JUNK = (
    *(None, True, False, -1, 0, 1, 7, 10**30, -(10**30), 10**400, 0.5, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), "", "x", "0.1", "a\0b", "\u202e", "\ud800", HTML, EVIL),
    *("../../x", "../../../x", "/etc/passwd", "..", ".", "C:\\x", "os:system", "torchvision:vgg11"),
    *([], {}, [1], [[]], ["a"], {"a": 1}, [{}], [{"label": HTML}], {"label": "../../x"}),
    "long " * 4000,
)


class _Evil:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self):
        return exec, ("open('ran', 'x')",)


def spoiled(path: Path, rng: random.Random) -> bool:
    """Changes a file in place.

    Returns:
        Whether its digest fits what it holds now.
    """
    if rng.random() < 0.35 or path.suffix not in (".json", ".npz", ".safetensors"):
        path.write_bytes(damaged(path.read_bytes(), rng))
        return False
    {".json": _json, ".npz": _npz, ".safetensors": _weights}[path.suffix](path, rng)
    return True


def displaced(path: Path, run: Path, away: Path, rng: random.Random) -> bool:
    """Puts something that is no file in the place of one of a run, or of a folder above it.

    Args:
        path: the file.
        run: the run folder.
        away: a copy of it, to which links lead.
        rng: chooses.

    Returns:
        True: what is read there, if anything is, need not be what was there.
    """
    deed = rng.choice(["link", "link", "pipe", "endless", "folder", "dead link", "loop"])
    if deed == "link":
        steps = [path, *(above for above in path.parents if above.is_relative_to(run))]
        path = rng.choice([step for step in steps if step != run])
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(away / path.relative_to(run))
        return True
    path.unlink()
    if deed == "pipe":
        os.mkfifo(path)
    elif deed == "endless":
        with path.open("wb") as file:
            file.truncate(10**12)
    elif deed == "folder":
        (path / "x").mkdir(parents=True)
    else:
        path.symlink_to(path.name if deed == "loop" else "/nowhere/at/all")
    return True


def damaged(data: bytes, rng: random.Random) -> bytes:
    """By chance: cut, flipped bits, other bytes between, gone."""
    place = rng.randrange(len(data) + 1)
    kind = rng.choice(["cut", "flip", "flip", "insert", "twice", "empty", "noise", "zeros"])
    if kind == "flip":
        out = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)
    words = [b"\0", b"{", b"[" * 100_000, b'"', b"NaN", b"1e999", b"9" * 5000, b"[[", b"\xff", b"="]
    return {
        "cut": data[:place],
        "insert": data[:place] + rng.choice(words) + data[place:],
        "twice": data + data,
        "empty": b"",
        "noise": rng.randbytes(len(data)),
        "zeros": data[:place] + bytes(len(data) - place),
    }[kind]


def _junk(rng: random.Random):
    return copy.deepcopy(rng.choice(JUNK))  # what is put into a tree may be changed there


def _change(tree, rng: random.Random) -> None:
    """Other values at one to three places, or none, or one more."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        # from above: else nearly every change would be in a long table
        way, here = [], tree
        while isinstance(here, dict | list) and here and (not way or rng.random() < 0.8):
            key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
            way.append(key)
            here = here[key]
        if not way:
            return
        parent = tree
        for key in way[:-1]:
            parent = parent[key]
        deed = rng.random()
        if deed < 0.2:
            del parent[way[-1]]
        elif deed < 0.25 and isinstance(parent, dict):
            parent[rng.choice([HTML, "", "../../x", "label", "file"])] = _junk(rng)
        elif deed < 0.3 and isinstance(parent, list):
            parent += parent * rng.choice((1, 50))
        else:
            parent[way[-1]] = _junk(rng)


def _sealed_json(data: dict, *, checked: bool) -> bytes:
    if checked:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        data = {**data, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.dumps(data).encode()


def _json(path: Path, rng: random.Random) -> None:
    data = json.loads(path.read_bytes())
    checked = data.pop("sha256", None) is not None
    _change(data, rng)
    path.write_bytes(_sealed_json(data, checked=checked))


def _sealed(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"0" * 64
    body = buffer.getvalue()[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _other(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """An array of other numbers, kind or shape."""
    kind = rng.choice(["nan", "huge", "minus", "zero", "float", "int", "text", "complex", "empty",
                       "half", "twice", "flat", "axis", "scalar", "pickle"])  # fmt: skip
    if kind in ("nan", "huge", "minus", "zero"):
        out = array.astype(float if kind == "nan" else array.dtype).copy()
        value = {
            "nan": np.nan,
            "huge": 1e38 if out.dtype.kind == "f" else 99,
            "minus": -1,
            "zero": 0,
        }
        some = max(1, out.size // rng.choice((1, 50)))
        out.reshape(-1)[:some] = np.asarray(value[kind]).astype(out.dtype)
        return out
    made = {
        "float": lambda: array.astype(np.float64) / 3,
        "int": lambda: array.astype(np.int8),
        "text": lambda: np.full(array.shape, HTML),
        "complex": lambda: array.astype(np.complex64),
        "empty": lambda: array[:0],
        "half": lambda: array[: len(array) // 2],
        "twice": lambda: np.concatenate([array, array]),
        "flat": lambda: array.reshape(-1),
        "axis": lambda: array[None],
        "scalar": lambda: np.array(3.0),
        "pickle": lambda: np.array([_Evil()], dtype=object),
    }[kind]
    with np.errstate(all="ignore"):
        return made() if array.ndim else np.array([array, array])


def _npz(path: Path, rng: random.Random) -> None:
    with np.load(path) as archive:
        members = {name: archive[name] for name in archive.files}
    meta = json.loads(members.pop("meta.json"))
    found = {f"{name}.npy": _npy(array) for name, array in members.items()}
    some = rng.choice(sorted(found))
    text, packing = json.dumps(meta).encode(), zipfile.ZIP_STORED
    deed = rng.choice(["array"] * 5 + ["drop", "meta", "deep", "bomb", "shape", "name", "raw"])
    if deed == "array":
        for name in rng.sample(sorted(found), rng.choice((1, 1, min(3, len(found))))):
            found[name] = _npy(_other(members[name.removesuffix(".npy")], rng))
    elif deed == "drop":
        del found[some]
    elif deed == "meta":
        if meta:
            _change(meta, rng)
        text = json.dumps(meta or _junk(rng)).encode()
    elif deed == "deep":
        text = b"[" * 200_000
    elif deed == "bomb":
        found[some], packing = _npy(np.zeros(4_000_000)), zipfile.ZIP_DEFLATED
    elif deed == "shape":
        huge = 10 ** rng.choice((9, 30))
        head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({huge}, 7), }}\n"
        found[some] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()
    elif deed == "name":
        found[rng.choice(["../../x.npy", "/x.npy", "a b.npy", HTML, "ran"])] = found.pop(some)
    else:
        found[some] = rng.choice([b"", pickle.dumps(_Evil()), b"PK\x03\x04", found[some][:-3]])
    path.write_bytes(_sealed({"meta.json": text, **found}, packing))


def _weights(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    meta = json.loads(header["__metadata__"]["robustloss"].split(" ", 1)[1])
    tensors = {k: v.copy() for k, v in safetensors.numpy.load(data).items()}
    some = rng.choice(sorted(tensors))
    deed = rng.choice(["meta", "meta", "nan", "shape", "kind", "drop", "name", "header"])
    if deed == "header":
        path.write_bytes(struct.pack("<Q", rng.choice((2**63, 10**8, 3))) + data[8:])
        return
    if deed == "nan":
        tensors[some] = np.full_like(tensors[some], np.nan)
    elif deed == "shape":
        tensors[some] = tensors[some][None].repeat(2, 0)
    elif deed == "kind":
        tensors[some] = tensors[some].astype(rng.choice((np.int64, np.float64, np.bool_)))
    elif deed in ("drop", "name"):
        taken = tensors.pop(some)
        if deed == "name":
            tensors["../../x"] = taken
    else:
        _change(meta, rng)
    if isinstance(meta, dict) and "tensors" in meta and deed != "meta":
        meta["tensors"] = _digest(tensors)
    text = json.dumps(meta, sort_keys=True)
    seal = {"robustloss": f"{hashlib.sha256(text.encode()).hexdigest()} {text}"}
    path.write_bytes(safetensors.numpy.save(tensors, metadata=seal))


def _digest(tensors: dict[str, np.ndarray]) -> str:
    import torch

    from robustloss.models.weight_files import tensor_digest

    return tensor_digest({name: torch.from_numpy(value) for name, value in tensors.items()})
