"""Spoiled image folders and archives, read one after the other under a guard.

``python -m tests.fuzz_data N [--seed S]`` prints what came of N inputs as JSON.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.spec.data import DataSpec
from tests.folders import write_folder
from tests.guard import Guard, watched

LONGEST = 30.0  # seconds
LARGEST = 4 * 2**20  # kB
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
PACKERS: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, bz2.compress, lzma.compress)
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE,
         tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME,
         tarfile.GNUTYPE_LONGLINK, b"V", b"Z")  # fmt: skip
NAMES = ("train", "train/ant", "train/ant/00.png", "../x", "/x", "a/../../x", "", ".", "..", "a\\b",
         "C:x", "x" * 300, "y/" * 300, "\udcff.png", "train/ant/\x1b[2J.png", "a\0b")  # fmt: skip


def main() -> None:
    """Reads N spoiled inputs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    home = Path.cwd()
    whole = write_folder(home / "whole", train=4, test=2, size=(9, 9))
    (home / "secret").write_text("mine")
    expected = load(whole).checksum
    guard, rng = Guard([home / "work", home / "robustloss"]), random.Random(asked.seed)
    told: Counter[str] = Counter()
    faults: list[str] = []
    for number in range(asked.count):
        shutil.rmtree(home / "work", ignore_errors=True)
        spoil = rng.choice((image, listing, archive, members))
        try:
            path, sealed = spoil(whole, home / "work", rng)
        except (ValueError, OSError):  # what tarfile or the system does not make
            continue
        found: list[str] = []
        began = time.monotonic()
        broken = watched(guard, lambda path=path, found=found: found.append(outcome(path)))
        took = time.monotonic() - began
        result = found[0] if found else "nothing"
        if broken or took > LONGEST or result.startswith("!"):
            faults.append(f"{number} {spoil.__name__}: {broken} {result} {took:.1f} s")
        elif sealed and result not in ("refused", expected):
            faults.append(f"{number} {spoil.__name__}: other images were read")
        told[f"{spoil.__name__} {'refused' if result == 'refused' else 'read'}"] += 1
    if (largest := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) > LARGEST:
        faults.append(f"{largest} kB")
    if (home / "secret").read_text() != "mine" or list((home / "robustloss").rglob(".*.*.*/*")):
        faults.append("something was changed, or left behind")
    print(json.dumps({"faults": faults, "kB": largest, **told}))


def load(path: Path):
    """Reads a folder or archive."""
    return load_dataset(DataSpec(name="image_folder", folder=str(path), image_size=9), quiet=True)


def outcome(path: Path) -> str:
    """The checksum of what was read, "refused", or the error that nobody expects."""
    try:
        return load(path).checksum
    except DataError:
        return "refused"
    except Exception as error:
        return f"! {type(error).__name__}: {error}"


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flips bits, cuts, or puts noise into bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3, 30))):
        place = rng.randrange(len(out) or 1)
        how = rng.randrange(4)
        if how == 0:
            del out[place:]
        elif how == 1:
            out[place:place] = rng.randbytes(rng.choice((1, 4, 512)))
        elif out:
            place = rng.choice((place, place % 64))  # heads are small, and decide most
            out[place % len(out)] ^= 1 << rng.randrange(8)
    return bytes(out)


def image(whole: Path, work: Path, rng: random.Random) -> tuple[Path, bool]:
    """A folder in which one image is damaged, of any format, under any name of ours."""
    shutil.copytree(whole, work / "data")
    picture = Image.open(whole / "train/ant/00.png")
    mode = rng.choice(("RGB", "L", "P", "RGBA", "1", "CMYK", "I;16"))
    file = io.BytesIO()
    picture.convert("L" if mode == "I;16" else mode).convert(mode).save(file, rng.choice(FORMATS))
    suffix = rng.choice(("png", "jpg", "bmp", "ppm", "tif", "webp"))
    place = work / "data" / rng.choice(("train", "test")) / "bee"
    (place / f"x.{suffix}").write_bytes(damaged(file.getvalue(), rng))
    return work / "data", False


def listing(whole: Path, work: Path, rng: random.Random) -> tuple[Path, bool]:
    """A folder with links, pipes, folders and odd names where images or classes should be."""
    data = Path(shutil.copytree(whole, work / "data"))
    for _ in range(rng.randint(1, 3)):
        place = data / rng.choice(("", "train", "test", "train/ant", "test/bee", "train/ant/deep"))
        place.mkdir(exist_ok=True)
        path = place / rng.choice(("x.png", "x.gif", "dog", "val", "validation", "\udcff.png"))
        target = rng.choice((".", "..", "nowhere", path.name, "/dev/zero", whole / "train/ant",
                             data, "/proc/self/fd", whole / "test/cat/00.png"))  # fmt: skip
        how = rng.randrange(5)
        if how == 0:
            os.mkfifo(path)
        elif how == 1:
            path.mkdir()
        elif how == 2:
            path.write_bytes(b"")
        else:
            path.symlink_to(target)
    return data, False


def packed(whole: Path, rng: random.Random, odd: int) -> bytes:
    """The bytes of an archive of the folder, with so many odd members."""
    file = io.BytesIO()
    paths = sorted(path for path in whole.rglob("*") if path.is_file())
    places = [rng.randrange(len(paths)) for _ in range(odd)]
    with tarfile.open(fileobj=file, mode="w", format=rng.choice((0, 1, 2))) as made:
        for number, path in enumerate(paths):
            made.add(path, path.relative_to(whole).as_posix())
            for _ in range(places.count(number)):
                info = tarfile.TarInfo(rng.choice(NAMES))
                info.type = rng.choice((*KINDS, tarfile.REGTYPE, tarfile.REGTYPE))
                info.linkname = rng.choice(("../../secret", "/etc/passwd", "train", ".", ""))
                content = rng.choice((b"", b"x", b"20 path=../../secret\n", b"12 size=-512\n"))
                info.size = rng.choice((len(content), len(content), 0, 2**20, 2**33))
                made.fileobj.write(info.tobuf(made.format, "utf-8", "surrogateescape"))  # type: ignore[union-attr]
                made.fileobj.write(content + bytes(-len(content) % 512))  # type: ignore[union-attr]
    return file.getvalue()


def archive(whole: Path, work: Path, rng: random.Random) -> tuple[Path, bool]:
    """An archive that is damaged; where it has checksums, no other images may come out."""
    pack = rng.choice(PACKERS)
    return write(work, damaged(pack(packed(whole, rng, 0)), rng)), pack is not bytes


def members(whole: Path, work: Path, rng: random.Random) -> tuple[Path, bool]:
    """An archive with members that do harm."""
    return write(work, rng.choice(PACKERS)(packed(whole, rng, rng.randint(1, 4)))), False


def write(work: Path, content: bytes) -> Path:
    """Writes an archive."""
    work.mkdir()
    (work / "data.tar").write_bytes(content)
    return work / "data.tar"


if __name__ == "__main__":
    main()
