"""Where the time of a cache server goes: its functions, and what its work costs at least."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from ntmobile.bench.profiles import RATE, SECONDS, markdown, parse, shares
from ntmobile.bench.results import NothingTransferred, Row, Skipped, Table
from ntmobile.lab.supervision import SEARCH_PATH
from ntmobile.machines.exchange.objects import CHUNK, PART
from ntmobile.plugins.files import sync_directory

#: Parts of one sample: 64 MiB.
COUNT: Final = 16
#: Seconds that a profiler takes to begin.
ATTACHING: Final = 0.5
_RECORD: Final = 1 << 14

_NOTE: Final = """\
MB/s, one thread, nothing around it, 4 MiB at a time. AES-256-GCM is that of one TLS record, 16 KiB,
in place. SHA-256 is to be done twice over what is uploaded (the request, and each chunk), and not
at all over what is downloaded. Disk: files of 4 MiB, each with `fsync` of the file and of its
directory, as the cache server writes them."""


def aes(count: int) -> float:
    """Seconds for sealing as many parts in TLS records."""
    cipher, data, into = AESGCM(bytes(32)), bytes(_RECORD), bytearray(_RECORD + 16)
    nonce = bytes(12)
    began = time.perf_counter()
    for _ in range(count * (PART // _RECORD)):
        cipher.encrypt_into(nonce, data, None, into)
    return time.perf_counter() - began


def hashing(count: int) -> float:
    """Seconds for the SHA-256 of as many parts."""
    data = bytes(PART)
    began = time.perf_counter()
    for _ in range(count):
        sha256(data).digest()
    return time.perf_counter() - began


def writing(place: Path, durable: bool, count: int) -> float:
    """Seconds for writing as many parts to files."""
    data = os.urandom(PART)
    files = [place / f"floor{number}" for number in range(count)]
    os.sync()
    began = time.perf_counter()
    for file in files:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(descriptor, data)
        if durable:
            os.fsync(descriptor)
        os.close(descriptor)
        if durable:
            sync_directory(place)
    seconds = time.perf_counter() - began
    for file in files:
        file.unlink()
    return seconds


def reading(place: Path, count: int) -> float:
    """Seconds for reading as many parts that are in the system's memory."""
    file = place / "floor"
    file.write_bytes(os.urandom(PART))
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    began = time.perf_counter()
    for _ in range(count):
        os.pread(descriptor, PART, 0)
    seconds = time.perf_counter() - began
    os.close(descriptor)
    file.unlink()
    return seconds


def floor(place: Path, repeat: int) -> Table:
    """Measure all, in turn; ``place``: a directory on the disk of the cache server."""
    works: dict[str, Callable[[int], float]] = {
        "AES-256-GCM": aes,
        "SHA-256": hashing,
        "disk, written and synced": partial(writing, place, True),
        "disk, written and left to the system": partial(writing, place, False),
        "disk, read from the system's memory": partial(reading, place),
    }
    rows = {name: Row(name) for name in works}
    for _ in range(repeat):
        for name, work in works.items():
            rows[name].samples.append(COUNT * PART / work(COUNT) / 1e6)
    table = Table("Stored data: the floor", "MB/s", note=_NOTE)
    table.rows = list(rows.values())
    return table


async def profiled(
    reactor: Any,
    title: str,
    pid: int,
    directory: Path,
    work: Callable[[], Awaitable[tuple[float, float]]],
) -> str:
    """Profile a process while work is done once: a table in Markdown.

    :param directory: for the profile. :param work: gives MB/s, and the microseconds of the
        process's processor time a chunk of 64 KiB.
    :raises Skipped: there is no py-spy, or it may not look at processes here.
    """
    program = shutil.which("py-spy", path=SEARCH_PATH)
    if program is None:
        raise Skipped("py-spy is not installed (pip install 'ntmobile[bench]')")
    file = directory / "profile"
    argv = ["record", "--pid", str(pid), "--format", "raw", "--function", "--rate", str(RATE)]
    argv += ["--duration", str(SECONDS), "--output", str(file)]
    recording = getProcessOutputAndValue(program, argv)
    await deferLater(reactor, ATTACHING, lambda: None)
    rate, micros = await work()
    _, errors, status = await recording
    if status:
        said = errors.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
        raise Skipped(f"py-spy may not look at the server here ({said[-1].strip()})")
    counts = parse(file.read_text(encoding="utf-8"))
    if not counts:
        raise NothingTransferred("the server was idle")
    return markdown(title, shares(counts, micros), rate * 1e6 / CHUNK, "chunk")
