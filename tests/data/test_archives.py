"""Archives of strangers: what tarfile reads of honest ones, and nothing of what does harm."""

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from robustloss.data import archives
from robustloss.data.archives import ArchiveError, iter_members
from robustloss.data.files import DataError
from robustloss.data.folders import unpack as unpacking
from robustloss.data.folders.listing import find_folder
from robustloss.data.folders.unpack import unpack
from tests.data.test_folders import load
from tests.folders import write_folder

CONTENT = {
    "train/ant/0.png": b"0" * 700,
    "train/ant/1.png": b"",
    "train/bee/ä é.png": b"x" * 512,
    f"train/{'long' * 30}/{'name' * 30}.png": b"long",
    "test/ant/\udcff.png": b"no UTF-8",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/robustloss/unpacked"


def packed(*members, kind=tarfile.GNU_FORMAT, **pax):
    """Return the bytes of an archive of (name, content) or of whole TarInfo and content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind, **pax) as made:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(name, tarfile.TarInfo):
                info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def read(path):
    return {member.name: b"".join(member.pieces) for member in iter_members(path)}


def write(tmp_path, content, name="data.tar"):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def unpacked(path):
    folder = unpack(path, quiet=True)
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".unpacked.json"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_honest_archives_are_read_as_tarfile_reads_them(tmp_path, kind, pack):
    folder = tarfile.TarInfo("train/empty/")
    folder.type = tarfile.DIRTYPE
    path = write(tmp_path, pack(packed(*CONTENT.items(), (folder, b""), kind=kind)))
    with tarfile.open(path) as theirs:
        expected = {m.name: theirs.extractfile(m).read() for m in theirs if m.isreg()}
    assert expected == CONTENT
    assert read(path) == {**expected, "train/empty": b""}
    assert unpacked(path) == CONTENT
    assert (unpack(path, quiet=True) / "train/empty").is_dir()


def test_global_records_labels_and_old_archives(tmp_path):
    label = tarfile.TarInfo("my label")
    label.type = b"V"
    names = [("./a.png", b"a"), ("/b/c.png", b"c"), ("d//e.png", b"e")]
    content = packed((label, b""), *names, kind=tarfile.PAX_FORMAT, pax_headers={"comment": "x"})
    assert read(write(tmp_path, content)) == {"a.png": b"a", "b/c.png": b"c", "d/e.png": b"e"}
    old = tarfile.TarInfo("f.png")
    old.type, old.size = tarfile.AREGTYPE, 1
    assert read(write(tmp_path, packed((old, b"f"), kind=tarfile.USTAR_FORMAT))) == {"f.png": b"f"}


def extended(text, size=None, kind=tarfile.XHDTYPE):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, len(text) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + text + bytes(-len(text) % 512)


def record(key, value):
    text = f" {key}={value}\n"
    return f"{len(text) + 2}{text}".encode()


FILE = packed(("a.png", b"a"))
HOSTILE = {
    "a link": packed(special("a.png", tarfile.SYMTYPE, "b.png"), ("b.png", b"b")),
    "a link out": packed(special("d", tarfile.SYMTYPE, "../../.."), ("d/x.png", b"x")),
    "a hard link": packed(("b.png", b"b"), special("a.png", tarfile.LNKTYPE, "b.png")),
    "a hard link out": packed(special("a.png", tarfile.LNKTYPE, "../../secret")),
    "a pipe": packed(special("a.png", tarfile.FIFOTYPE)),
    "a device": packed(special("a.png", tarfile.CHRTYPE)),
    "a disk": packed(special("a.png", tarfile.BLKTYPE)),
    "an unknown kind": packed(special("a.png", b"Z")),
    "holes": packed(special("a.png", tarfile.GNUTYPE_SPARSE)),
    "holes by record": extended(record("GNU.sparse.major", "1")) + FILE,
    "above": packed(("../evil.png", b"x")),
    "above, later": packed(("a/../../evil.png", b"x")),
    "above by record": extended(record("path", "../evil.png")) + FILE,
    "above for all": extended(record("path", "../evil.png"), kind=tarfile.XGLTYPE) + FILE,
    "above by a long name": extended(b"../evil.png\0", kind=tarfile.GNUTYPE_LONGNAME) + FILE,
    "a name with NUL": extended(record("path", "a\0b")) + FILE,
    "no name": packed(("./", b"x")),
    "deep": packed(("a/" * 200 + "x.png", b"x")),
    "twice": packed(("a.png", b"1"), ("a.png", b"2")),
    "a file as folder": packed(("a", b"1"), ("a/b.png", b"2")),
    "a folder as file": packed(("a/b.png", b"2"), ("a", b"1")),
    "no size": extended(record("size", "9" * 15)) + FILE,
    "a size below 0": extended(b"", size=-512, kind=tarfile.REGTYPE) + FILE,
    "a record of size below 0": extended(b"", size=-512) + FILE,
    "a long record": extended(b"", size=2**33) + FILE,
    "a long name without end": extended(b"x" * 2**20, kind=tarfile.GNUTYPE_LONGNAME) + FILE,
    "a record that is too long": extended(b"999 path=a\n") + FILE,
    "a record without length": extended(b"path=a\n") + FILE,
    "a record below 0": extended(b"-11 path=a\n") + FILE,
    "two in one": FILE + FILE,
    "no end mark": FILE[:1024],
    "half a header": FILE[:300],
    "half a member": packed(("a.png", b"a" * 5000))[:3000],
    "nothing": b"",
    "its own count": packed((".unpacked.json", b"{}")),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(tmp_path, cache, name):
    before = set(tmp_path.rglob("*"))
    path = write(tmp_path, HOSTILE[name])
    with pytest.raises(DataError, match=r"data\.tar: cannot be unpacked"):
        unpack(path, quiet=True)
    assert set(tmp_path.rglob("*")) - before - {path} <= {cache, *cache.parents}


def test_a_chain_of_links_beyond_the_longest_path_reaches_nothing(tmp_path, cache):
    """CVE-2025-4517: realpath gives up on a long path, and the filter of tarfile with it."""
    folder, steps, members = "d" * 247, "abcdefghijklmnop", []
    place = ""
    for step in steps:
        inner = tarfile.TarInfo(f"{place}{folder}")
        inner.type = tarfile.DIRTYPE
        members += [(inner, b""), special(f"{place}{step}", tarfile.SYMTYPE, folder)]
        place += f"{folder}/"
    long = "/".join(steps) + "/" + "l" * 254
    members += [
        special(long, tarfile.SYMTYPE, "../" * len(steps)),
        special("escape", tarfile.SYMTYPE, f"{long}/../../../.."),
        special("flag", tarfile.LNKTYPE, "escape/secret"),
        ("flag", b"overwritten"),
    ]
    secret = tmp_path / "cache/robustloss/secret"
    secret.parent.mkdir(parents=True)
    secret.write_text("mine")
    with pytest.raises(DataError, match="is a link, and only files and folders are unpacked"):
        unpack(write(tmp_path, packed(*members)), quiet=True)
    assert secret.read_text() == "mine"
    assert not list(cache.iterdir())


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_stopped_while_it_unpacks(tmp_path, cache, monkeypatch, pack):
    monkeypatch.setattr(archives, "LEAST_LIMIT", 10**6)
    path = write(tmp_path, pack(packed(("a.png", bytes(2 * 10**7)))))
    assert path.stat().st_size < 10**5
    with pytest.raises(DataError, match=r"more than 0\.00.* GB, and more than 100 times its own"):
        unpack(path, quiet=True)
    assert not list(cache.iterdir())


def test_a_bomb_behind_the_end_mark_and_one_of_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LEAST_LIMIT", 10**6)
    monkeypatch.setattr(archives, "LEAST_MEMBERS", 20)
    with pytest.raises(ArchiveError, match="holds more than"):
        read(write(tmp_path, gzip.compress(FILE + bytes(2 * 10**7))))
    many = packed(*((f"{n}", b"") for n in range(1000)))
    with pytest.raises(ArchiveError, match=r"it has more than \d+ members"):
        read(write(tmp_path, gzip.compress(many)))


def test_no_flipped_bit_of_a_header_and_no_cut_loses_an_image(tmp_path):
    images = {f"train/ant/{n}.png": bytes([n]) * 600 for n in range(8)}
    whole, rng = packed(*images.items()), random.Random(0)
    headers = [n * 512 for n in range(0, 3 * len(images), 3)]
    for _ in range(300):
        spoilt = bytearray(whole)
        spoilt[rng.choice(headers) + rng.randrange(512)] ^= 1 << rng.randrange(8)
        with suppress(ArchiveError):
            assert read(write(tmp_path, spoilt)) == images  # the space behind the sum of a header
    for end in range(0, len(images) * 1536 + 1, 256):
        with pytest.raises(ArchiveError):
            read(write(tmp_path, whole[:end]))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_no_flipped_bit_of_a_packed_archive_gives_other_bytes(tmp_path, pack):
    rng = random.Random(1)
    images = {f"train/ant/{n}.png": rng.randbytes(600) for n in range(8)}
    whole = pack(packed(*images.items()))
    for _ in range(200):
        spoilt = bytearray(whole)
        spoilt[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        try:
            found = read(write(tmp_path, spoilt))
        except ArchiveError:
            continue
        assert found == images  # a bit of the time or the system in the head of gzip
    with pytest.raises(ArchiveError):
        read(write(tmp_path, whole[:-1]))


@pytest.mark.parametrize("spoil", ["lost", "cut", "more", "no count", "older"])
def test_what_was_unpacked_is_counted_again(tmp_path, cache, spoil):
    path = write(tmp_path, packed(*CONTENT.items()))
    folder = unpack(path, quiet=True)
    inode = folder.stat().st_ino
    assert unpack(path, quiet=True).stat().st_ino == inode
    image = folder / "train/ant/0.png"
    if spoil == "lost":
        image.unlink()
    elif spoil == "cut":
        image.write_bytes(b"0")
    elif spoil == "more":
        (folder / "test/ant/more.png").write_bytes(b"")
    else:
        (folder / ".unpacked.json").unlink()
    assert unpacked(path) == CONTENT
    assert folder.stat().st_ino != inode
    assert list(cache.iterdir()) == [folder]


KILLED = """
import os, sys
from pathlib import Path
from robustloss.data.folders import unpack
write = unpack.write_json
def slow(*given, **more):
    print("here", flush=True)
    sys.stdin.read()
    write(*given, **more)
unpack.write_json = slow
unpack.unpack(Path(sys.argv[1]), quiet=True)
"""


def test_what_a_killed_process_left_is_removed_and_a_living_one_is_let_alone(tmp_path, cache):
    path = write(tmp_path, packed(*CONTENT.items()))
    other = write(tmp_path, packed(("train/a/0.png", b"")), "other.tar")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(unpacking.__file__).parents[3],
    ) as made:  # fmt: skip
        assert made.stdout.readline() == b"here\n"
        [half] = cache.iterdir()
        unpack(other, quiet=True)
        assert half.is_dir()
        os.kill(made.pid, signal.SIGKILL)
    assert half.is_dir()
    assert unpacked(path) == CONTENT
    assert not half.exists()
    assert len(list(cache.iterdir())) == 2


CRASHES = """
import os, shutil, sys
from pathlib import Path
from robustloss.data.folders.unpack import cache_folder, unpack

path, damaged = Path(sys.argv[1]), sys.argv[2] == "damaged"
folder = unpack(path, quiet=True)
whole = sorted(folder.rglob("*"))
for point in range(1, 1000):
    if damaged:
        (folder / "test/a/0.png").unlink()
    else:
        shutil.rmtree(folder)
    if not (child := os.fork()):
        left = point
        def stop(event, args):
            global left
            if event == "open" or event.startswith("os."):
                left -= 1
                if not left:
                    os._exit(9)
        sys.addaudithook(stop)
        unpack(path, quiet=True)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    assert unpack(path, quiet=True) == folder
    assert sorted(folder.rglob("*")) == whole, point
    assert [*(cache_folder() / "unpacked").iterdir()] == [folder], point
    if not ended:
        print(point)
        break
"""


@pytest.mark.parametrize("before", ["damaged", "absent"])
def test_a_kill_at_any_step_leaves_a_whole_folder_or_none(tmp_path, before):
    path = write(tmp_path, packed(("train/a/0.png", b"x"), ("test/a/0.png", b"yy")))
    done = subprocess.run([sys.executable, "-c", CRASHES, path, before], capture_output=True,
                          text=True, cwd=Path(unpacking.__file__).parents[3])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


def test_two_processes_may_unpack_at_once(tmp_path, cache):
    path = write(tmp_path, packed(*((f"train/a/{n}.png", b"x" * n) for n in range(300))))
    code = "import sys, pathlib; from robustloss.data.folders.unpack import unpack; "
    code += "unpack(pathlib.Path(sys.argv[1]), quiet=True)"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path)],
                         cwd=Path(unpacking.__file__).parents[3])
        for _ in range(2)
    ]  # fmt: skip
    assert [process.wait() for process in started] == [0, 0]
    assert len(unpacked(path)) == 300
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("beside", ["README", "__MACOSX/pictures/._0.png", ".DS_Store", "a/b.txt"])
def test_the_one_folder_is_found_beside_what_is_no_data(tmp_path, beside):
    members = [(f"pictures/train/ant/{n}.png", b"") for n in range(2)] + [(beside, b"x")]
    path = write(tmp_path, packed(*members))
    found = find_folder(str(path), [tmp_path], quiet=True)
    assert (found / "train").is_dir() == (beside != "a/b.txt")


def test_reading_is_quick(tmp_path):
    path = write(tmp_path, gzip.compress(packed(*((f"{n}.png", b"x") for n in range(5000)))))
    began = time.monotonic()
    assert len(read(path)) == 5000
    assert time.monotonic() - began < 20


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("uniform"), size=(8, 12), suffix="jpg")


@pytest.mark.parametrize("top", ["", "pictures/"])
def test_an_archive_is_unpacked_once_and_read_like_its_folder(uniform, tmp_path, monkeypatch, top):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "pictures.tar.xz", "w:xz") as made:
        for part in ("train", "test"):
            made.add(uniform / part, f"{top}{part}")
    first = load("pictures.tar.xz", near=tmp_path)
    assert first.checksum == load(uniform).checksum
    unpacked = list((tmp_path / "cache/robustloss/unpacked").iterdir())
    assert len(unpacked) == 1
    before = unpacked[0].stat().st_mtime_ns
    assert load("pictures.tar.xz", near=tmp_path).checksum == first.checksum
    assert [p.stat().st_mtime_ns for p in unpacked] == [before]


def test_another_archive_of_the_same_size_and_time_is_not_taken_for_the_first(
    uniform, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sums = []
    for order in (("00", "01"), ("01", "00")):  # two images of one class change places
        root = Path(shutil.copytree(uniform, tmp_path / f"order-{order[0]}"))
        for old, new in zip(("00", "01"), order, strict=True):
            shutil.copy(uniform / f"train/ant/{old}.jpg", root / f"train/ant/{new}.jpg")
        with tarfile.open(tmp_path / "pictures.tar", "w") as made:
            for part in ("train", "test"):
                made.add(root / part, part)
        os.utime(tmp_path / "pictures.tar", (1e9, 1e9))
        sums.append((load(tmp_path / "pictures.tar").checksum, load(root).checksum))
    assert sums[0][0] == sums[0][1]
    assert sums[1][0] == sums[1][1]
    assert sums[0] != sums[1]


def test_of_a_large_archive_blocks_are_read_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "READ_WHOLE", 100)
    monkeypatch.setattr(unpacking, "BLOCKS", 4)
    monkeypatch.setattr(unpacking, "BLOCK", 10)
    path, content = tmp_path / "large.tar", bytes(range(256)) * 4
    found = set()
    for place in (None, 0, 9, 338, 1014, 1023):
        changed = bytearray(content)
        if place is not None:
            changed[place] ^= 1
        path.write_bytes(changed)
        found.add(unpacking.hash_archive(path, len(changed)))
    assert len(found) == 6


@pytest.mark.parametrize("name", ["bad.tar.xz", "bad.tar.gz", "bad.tar", "bad.zip"])
def test_a_damaged_archive_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08 no archive" * 90)
    with pytest.raises(DataError, match=r"cannot be unpacked|neither a folder nor a tar archive"):
        load(tmp_path / name)
    assert not list((tmp_path / "cache/robustloss/unpacked").glob("*"))


def test_a_truncated_archive_is_refused_and_leaves_nothing(uniform, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "cut.tar.gz", "w:gz") as made:
        made.add(uniform / "train", "train")
    content = (tmp_path / "cut.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut.tar.gz: cannot be unpacked"):
        load(tmp_path / "cut.tar.gz")
    assert not list((tmp_path / "cache/robustloss/unpacked").iterdir())
