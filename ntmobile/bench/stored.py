"""Stored data beside nginx: a GiB to a cache server and back, small messages, and long lists."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from twisted.internet.base import ReactorBase

from ntmobile.bench import stored_messages, stored_profile
from ntmobile.bench.load_realm import HOST
from ntmobile.bench.nginx import NGINX, PACKAGE, Nginx
from ntmobile.bench.programs import debian_version
from ntmobile.bench.results import (
    OWN,
    Bar,
    Measure,
    NothingTransferred,
    Row,
    Say,
    Section,
    Skipped,
    Table,
    in_turn,
)
from ntmobile.bench.stored_objects import Parcel, Sealing, drive
from ntmobile.bench.stored_realm import StoredRealm, file_system, request_head, workplace
from ntmobile.bench.transfer import Ask, Done, Job
from ntmobile.machines.exchange.objects import PART_CHUNKS, SEALED_PART

#: The bars of the design (section 9): a multiple of nginx, and MiB.
RATIO, MEMORY = 0.5, 100.0
#: The peer, asked as the cache server is.
PARTS: Final = f"{NGINX}, 4 MiB a request"
_APPLICATION: Final = "bench"
#: Connections on which parts are uploaded, as the client library does.
LANES: Final = 2


@define(frozen=True)
class Size:
    """How much is measured.

    :ivar octets: of the object, :ivar library: of that which the client library sends.
    :ivar messages: of one sample. :ivar waiting: items that are listed.
    """

    octets: int = 1 << 30
    library: int = 1 << 27
    messages: int = 100
    waiting: int = 10_000


_NOTE = """\
Real processes on loopback: an account server, two coordinators and a cache server, with TLS 1.3,
and nginx of Debian as a WebDAV server with the cache server's certificate, on the same file
system. One client of our own asks both: a process that has everything ready (sealed parts, digests,
signatures) and moves it from and to memory. The cache server is asked as the client library does:
4 MiB a request, two of them at a time where it uploads, one after the other where it downloads; the
time includes announcing the object, the check of its root and that the receiver's coordinator was
told. nginx gets one `PUT` and one `GET` of the same bytes, and, in a row of its own, the same in
requests as the cache server gets them. What was uploaded is hashed where it is stored, or when it
was downloaded again, after the clock has stopped; before each sample what the last one left is
removed, and the disk is idle (`sync`). One sample of each goes before those that count.

They do not do the same. The cache server has each part on the disk (`fsync`) before it says so,
verifies a SHA-256 of each request and hashes each chunk of 64 KiB; nginx leaves its file to the
kernel and hashes nothing. Both SHA-256 are most of what the cache server's processor does more: in
threads, so the ratio is better where a core is free for them, and worse on a busy machine."""


_LIBRARY = """\
`Exchange.send` of a file, which reads and seals it twice (once to know its root, once to send it),
signs, and uploads; `Exchange.inbox` and `fetch` of it into a file, which verifies everything and
has each part on the disk before it asks for the next."""


@define(eq=False)
class Transfers:
    """A big object, a cache server, and nginx.

    :ivar nginx: None where there is none. :ivar cipher: what was spoken, by contender.
    :ivar cpu: seconds of the server's processor in the last transfer, by contender and way.
    """

    realm: StoredRealm
    nginx: Nginx | None
    parcel: Parcel
    source: Path
    cipher: dict[str, str] = field(factory=dict)
    cpu: dict[tuple[str, str], float] = field(factory=dict)

    async def _drive(self, port: int, asks: list[Ask], room: int = 0, ends: int = 0) -> Done:
        """Ask all on one connection; with ``ends``, what is between them on :data:`LANES`."""
        lanes, first, last = [asks], asks[:ends], asks[len(asks) - ends :]
        if ends or (len(asks) > 1 and not room):
            between = asks[ends : len(asks) - ends]
            lanes = [between[lane::LANES] for lane in range(LANES)]
        authority, source = str(self.realm.authority), str(self.source)
        job = Job(HOST, port, authority, lanes, source, room, first, last)
        return await drive(job, self.realm.directory)

    async def _ask_cache(self, what: str, asks: list[Ask], room: int = 0, ends: int = 0) -> Done:
        before = self.realm.cs.cpu()[1]
        done = await self._drive(self.realm.ports["cs1"], asks, room, ends)
        self.cpu[OWN, what] = self.realm.cs.cpu()[1] - before
        self.cipher[OWN] = done.cipher
        return done

    def micros(self, who: str, way: str) -> float:
        """A server's processor time in the last transfer, microseconds a chunk of 64 KiB."""
        return self.cpu[who, way] * 1e6 / len(self.parcel.parts) / PART_CHUNKS

    def _rate(self, done: Done) -> float:
        return self.parcel.length / done.seconds / 1e6

    def check(self, found: object) -> None:
        """See that what came has the digest of what was sent.

        :raises NothingTransferred: it has another.
        """
        if found != self.parcel.digest:
            raise NothingTransferred("what came is not what was sent")

    async def withdraw(self) -> None:
        """Remove the object from the CS, where it is there."""
        ask = self.parcel.withdraw(self.realm.phone)
        try:
            await self._drive(self.realm.ports["cs1"], [ask])
        except NothingTransferred as problem:
            if "status 404" not in str(problem):
                raise

    async def upload(self) -> float:
        """Upload to the CS, MB/s, when nothing of it is there and the disk is idle."""
        await self.withdraw()
        os.sync()
        return await self.upload_now()

    async def upload_now(self) -> float:
        """Upload to the CS, MB/s."""
        done = await self._ask_cache("up", self.parcel.upload(self.realm.phone), ends=1)
        if '"outcome":0' not in done.last:
            raise NothingTransferred(f"the receiver's coordinator was not told: {done.last[:200]}")
        return self._rate(done)

    async def download(self) -> float:
        """Download from the CS, MB/s."""
        asks = self.parcel.download(self.realm.laptop)
        done = await self._ask_cache("down", asks, self.parcel.length)
        self.check(done.digest)
        return self._rate(done)

    async def upload_nginx(self, pieces: bool) -> float:
        """Upload to nginx, MB/s."""
        nginx, asks = self._nginx(), []
        for name, begin, length in self._files(pieces):
            nginx.stored(name).unlink(missing_ok=True)
            asks.append(Ask(request_head("PUT", f"/{name}", length, {}), 201, begin, length))
        os.sync()
        done = await self._ask_nginx("up", asks)
        whole = sha256()
        for name, _, _ in self._files(pieces):
            whole.update(nginx.stored(name).read_bytes())
        self.check(whole.hexdigest())
        return self._rate(done)

    async def download_nginx(self, pieces: bool) -> float:
        """Download from nginx, MB/s."""
        asks = [
            Ask(request_head("GET", f"/{name}", 0, {}), 200, keep=True)
            for name, _, _ in self._files(pieces)
        ]
        done = await self._ask_nginx("down", asks, self.parcel.length)
        self.check(done.digest)
        return self._rate(done)

    async def _ask_nginx(self, what: str, asks: list[Ask], room: int = 0) -> Done:
        nginx = self._nginx()
        before = nginx.cpu()
        done = await self._drive(nginx.port, asks, room)
        name = NGINX if len(asks) == 1 else PARTS
        self.cpu[name, what] = nginx.cpu() - before
        self.cipher[NGINX] = done.cipher
        return done

    def _nginx(self) -> Nginx:
        if self.nginx is None:
            raise Skipped(f"{NGINX} is not installed (Debian package {PACKAGE})")
        return self.nginx

    def _files(self, pieces: bool) -> list[tuple[str, int, int]]:
        """Names, begins and lengths of what nginx stores."""
        whole = self.parcel.length
        size = SEALED_PART if pieces else whole
        kind = "part" if pieces else "whole"
        begin = self.parcel.parts[0].begin
        return [
            (f"{kind}{at // size}", begin + at, min(size, whole - at))
            for at in range(0, whole, size)
        ]


@define(eq=False)
class Library:
    """The client library, in this process: it seals, signs, hashes, verifies, and uses files.

    :ivar source: what is sent.
    """

    realm: StoredRealm
    source: Path

    async def send(self) -> float:
        """Send the file, MB/s."""
        os.sync()
        began = time.perf_counter()
        await self.realm.phone.exchange.send(
            [self.realm.laptop.fqdn], self.source, application="library"
        )
        return self.source.stat().st_size / (time.perf_counter() - began) / 1e6

    async def receive(self) -> float:
        """Receive what waits longest, and confirm it, MB/s."""
        laptop = self.realm.laptop.exchange
        target = self.source.with_suffix(".received")
        target.unlink(missing_ok=True)
        began = time.perf_counter()
        item, *_ = await laptop.inbox("library")
        await laptop.fetch(item, target)
        seconds = time.perf_counter() - began
        await laptop.confirm(item)
        if _digest(target) != _digest(self.source):
            raise NothingTransferred("what came is not what was sent")
        return self.source.stat().st_size / seconds / 1e6


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        whole = sha256()
        while data := stream.read(1 << 20):
            whole.update(data)
        return whole.hexdigest()


async def measure(reactor: ReactorBase, repeat: int, say: Say) -> Section:
    """Measure all of it."""
    return await measured(reactor, repeat, say, Size())


async def measured(reactor: Any, repeat: int, say: Say, size: Size) -> Section:
    """Measure so much."""
    section = Section("stored", "Stored data", _NOTE)
    with workplace(6 * (size.octets + size.library) + (1 << 30)) as place:
        realm = StoredRealm(place)
        nginx: Nginx | None = None
        try:
            realm.make()
            realm.start()
            await realm.log_in(reactor)
            nginx = _start_nginx(realm, say)
            if nginx is not None:
                section.machine[NGINX] = debian_version(PACKAGE)
            section.tables, section.text = await _transfers(
                reactor, realm, nginx, repeat, say, size
            )
            section.tables.append(memory(realm))
            section.tables += await stored_messages.measure(
                reactor, realm, repeat, say, size.messages, size.waiting
            )
            section.tables.append(stored_profile.floor(place, repeat))
        finally:
            if nginx is not None:
                nginx.stop()
            realm.close()
    return section


def memory(realm: StoredRealm) -> Table:
    """The most memory that the CS ever had, up to now."""
    row = Row("cache server", [realm.cs.rss("VmHWM") / (1 << 20)])
    row.detail = "VmHWM of its process after all of the above"
    table = Table("Stored data: memory of the cache server", "MiB", more=False, rows=[row])
    table.bars = [Bar(row.name, most=MEMORY)]
    return table


def _start_nginx(realm: StoredRealm, say: Say) -> Nginx | None:
    nginx = Nginx(realm.directory / NGINX, *realm.cache_files)
    try:
        nginx.start()
    except Skipped as reason:
        say(f"{NGINX}: skipped: {reason}")
        return None
    return nginx


async def _transfers(
    reactor: Any, realm: StoredRealm, nginx: Nginx | None, repeat: int, say: Say, size: Size
) -> tuple[list[Table], str]:
    source = realm.directory / "sealed"
    parcel = Sealing(realm.phone, realm.laptop, bytes(32), _APPLICATION, source).seal(size.octets)
    plain = realm.directory / "plain"
    with plain.open("wb") as stream:
        for _ in range(0, size.library, 1 << 20):
            stream.write(os.urandom(min(1 << 20, size.library)))
    one, library = Transfers(realm, nginx, parcel, source), Library(realm, plain)
    up: Mapping[str, Measure] = {
        OWN: one.upload,
        NGINX: partial(one.upload_nginx, False),
        PARTS: partial(one.upload_nginx, True),
    }
    down: Mapping[str, Measure] = {
        OWN: one.download,
        NGINX: partial(one.download_nginx, False),
        PARTS: partial(one.download_nginx, True),
    }
    both: Mapping[str, Measure] = {"sent": library.send, "received": library.receive}
    say("-- to the server, once before it counts")
    await in_turn(1, {name: up[name] for name in (OWN, NGINX)}, "MB/s", say)
    say("-- to the server")
    tables = [_table("to the server", await in_turn(repeat, up, "MB/s", say), one, "up")]
    say("-- from the server")
    tables.append(_table("from the server", await in_turn(repeat, down, "MB/s", say), one, "down"))
    say("-- by the client library")
    table = Table("Stored data: the client library, end to end", "MB/s", note=_LIBRARY)
    table.rows = list((await in_turn(repeat, both, "MB/s", say)).values())
    tables.append(table)
    text = await _profiles(reactor, one, say)
    await one.withdraw()
    for file in (source, plain):
        file.unlink()
    return tables, text


async def _profiles(reactor: Any, one: Transfers, say: Say) -> str:
    """Where the time of the CS goes."""
    say("-- profiles")
    cs, pages = one.realm.cs, []
    for title, way, work in (
        ("Cache server: download", "down", one.download),
        ("Cache server: upload", "up", one.upload_now),
    ):

        async def measured(way: str = way, work: Measure = work) -> tuple[float, float]:
            return await work(), one.micros(OWN, way)

        if way == "up":
            await one.withdraw()
            os.sync()
        try:
            pages.append(
                await stored_profile.profiled(reactor, title, cs.pid, one.realm.directory, measured)
            )
        except Skipped as reason:
            say(f"profile: skipped: {reason}")
            return f"Profiles are skipped: {reason}.\n"
    return "\n".join(pages)


def _table(title: str, rows: dict[str, Row], one: Transfers, way: str) -> Table:
    table = Table(f"Stored data: {title}", "MB/s", rows=list(rows.values()))
    table.bars = [Bar(OWN, NGINX, least=RATIO)]
    for name in (OWN, NGINX):
        rows[name].detail = one.cipher.get(name, "")
    for name in (OWN, NGINX, PARTS):
        if (name, way) in one.cpu:
            spent = f"{one.micros(name, way):.0f} µs of its processor time a chunk of 64 KiB"
            rows[name].detail = "; ".join(filter(None, (rows[name].detail, spent)))
    table.note = f"Content of {one.parcel.length:,} bytes, on {file_system(one.realm.directory)}."
    return table
