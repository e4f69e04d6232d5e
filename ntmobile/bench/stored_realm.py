"""The realm that the benchmarks of stored data use: real processes on loopback, and two devices.

One AS, two DCs and one CS, set up as an operator would. The sender is a device of the first domain,
the receiver one of the second; both have logged in, and this process is both of them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import msgspec
from attrs import define, field, frozen
from twisted.internet.task import deferLater

from ntmobile.bench.load_realm import HOST, Server, free_ports
from ntmobile.bench.results import Skipped
from ntmobile.bench.transfer import Ask
from ntmobile.client.account import Account
from ntmobile.client.exchange import Exchange, ExchangeStore, Session
from ntmobile.client.exchange.asking import cache_server
from ntmobile.client.identity import DeviceIdentity, home_authority
from ntmobile.client.login import enroll, log_in
from ntmobile.client.pins import PinStore
from ntmobile.client.state import PINS
from ntmobile.errors import AuthenticationError, NoSuchItem, NotRegistered, Unreachable
from ntmobile.lab.node import remove_tree
from ntmobile.machines.exchange.signing import Signer
from ntmobile.protocols.http_routes import JSON_TYPE, OCTETS_TYPE
from ntmobile.servers.passwords import hash_password
from ntmobile.servers.realm import Realm
from ntmobile.servers.realm_files import change
from ntmobile.wire.codec import Message
from ntmobile.wire.documents import write_document
from ntmobile.wire.http_digests import CONTENT_DIGEST, content_digest, digest_field
from ntmobile.wire.http_keys import coordinator_key
from ntmobile.wire.http_signatures import HmacKey, Request, sign

REALM: Final = "ntm.example"
DC1, DC2 = f"dc1.{REALM}", f"dc2.{REALM}"
CACHE: Final = f"cs1.{DC1}"
#: Where files outlive a restart: a disk, where there is one.
PLACE: Final = Path("/var/tmp")
#: Requests of one device in a second that the CS takes; its default is 250.
REQUESTS: Final = 100_000
_PATIENCE: Final = 30.0


@contextmanager
def workplace(need: int) -> Iterator[Path]:
    """A directory on a disk, removed at the end.

    :param need: bytes that have to be free there.
    :raises Skipped: they are not.
    """
    if shutil.disk_usage(PLACE).free < need:
        raise Skipped(f"{need >> 30} GiB are needed in {PLACE}, and there is less")
    directory = Path(mkdtemp(prefix="ntm-bench-", dir=PLACE))
    try:
        yield directory
    finally:
        remove_tree(directory)


def file_system(place: Path) -> str:
    """The type of the file system that a path is on, such as ``ext4``."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines():
        _, mount, found, *_ = line.split()
        inside = place.is_relative_to(mount)
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


@frozen
class Octets:
    """A body: a piece of a job's file, and its SHA-256."""

    begin: int
    length: int
    digest: bytes


@define(eq=False)
class StoredDevice:
    """A device that has logged in.

    :ivar exchange: its stored data, by the client library.
    """

    fqdn: str
    session: Session
    pins: PinStore
    store: ExchangeStore
    exchange: Exchange

    @property
    def signer(self) -> Signer:
        """Signs what it sends."""
        identity = self.session.identity
        return Signer(self.fqdn, identity.certificate.der, identity.keys.identity)

    def ask_cache(
        self,
        method: str,
        target: str,
        status: int,
        body: Message | Octets | None = None,
        keep: bool = False,
    ) -> Ask:
        """A signed request to the CS, good for some minutes.

        :param status: what it is to be answered. :param keep: see :class:`.transfer.Ask`.
        """
        if self.session.token is None:
            raise NotRegistered("the account server gave no token")
        token, key = self.session.token
        ask = _signed(HmacKey(key), token.hex(), method, target, body)
        return msgspec.structs.replace(ask, status=status, keep=keep)

    def ask_coordinator(
        self, method: str, target: str, status: int, body: Message | None = None
    ) -> Ask:
        """The same to its own DC."""
        key = HmacKey(coordinator_key(self.session.key))
        ask = _signed(key, self.session.index.hex(), method, target, body)
        return msgspec.structs.replace(ask, status=status)

    def close(self) -> None:
        """Close its files."""
        self.store.close()
        self.pins.close()


def _signed(
    key: HmacKey, keyid: str, method: str, target: str, body: Message | Octets | None
) -> Ask:
    path, _, query = target.partition("?")
    fields: dict[str, str] = {}
    text, begin, length = "", 0, 0
    if isinstance(body, Octets):
        begin, length = body.begin, body.length
        fields = {CONTENT_DIGEST: digest_field(body.digest), "content-type": OCTETS_TYPE}
    elif body is not None:
        document = write_document(body)
        text = document.decode("utf-8")
        fields = {CONTENT_DIGEST: content_digest(document), "content-type": JSON_TYPE}
    listed = {name: [value] for name, value in fields.items()}
    fields |= sign(
        Request(method, path, query, fields=listed),
        key,
        keyid=keyid,
        created=int(time.time()),
        nonce=os.urandom(16),
    )
    head = request_head(method, target, length or len(text.encode()), fields)
    return Ask(head, 0, begin, length, text)


def request_head(method: str, target: str, length: int, fields: dict[str, str]) -> str:
    """The head of an HTTP/1.1 request whose body has so many bytes."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if length:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""])


@define(eq=False)
class StoredRealm:
    """The servers, and both devices.

    :ivar directory: empty; everything is written there. :ivar cs: the cache server's process.
    :ivar ports: of ``as``, ``dc1``, ``dc2`` and ``cs1``.
    """

    directory: Path
    ports: dict[str, int] = field(factory=dict)
    cs: Server = field(init=False)
    phone: StoredDevice = field(init=False)
    laptop: StoredDevice = field(init=False)
    _realm: Realm = field(init=False)
    _servers: list[Server] = field(factory=list, init=False)
    _password: str = field(factory=lambda: secrets.token_urlsafe(12), init=False, repr=False)

    @property
    def authority(self) -> Path:
        """The realm's authority."""
        return self._realm.directory / "ca.pem"

    @property
    def cache_files(self) -> tuple[Path, Path]:
        """Certificate and key of the CS, which the peer is given too."""
        place = self._realm.directory / "caches" / "cs1"
        return place / "cs.pem", place / "cs.key"

    @property
    def cache_file(self) -> Path:
        """The CS's configuration."""
        return self._realm.directory / "caches" / "cs1.toml"

    def coordinator_file(self, domain: str) -> Path:
        """A DC's configuration."""
        return self._realm.directory / domain / "dc.toml"

    # -- its servers

    def make(self) -> None:
        """Write authority, configurations, and two users."""
        names = ("as", "dc1", "dc2", "cs1")
        *ports, dns1, dns2 = free_ports(len(names) + 2)
        self.ports = dict(zip(names, ports, strict=True))
        self._realm = Realm.create(self.directory / "realm", REALM, [HOST], self.ports["as"])
        table = ""
        for domain, name, dns in ((DC1, "dc1", dns1), (DC2, "dc2", dns2)):
            self._realm.add_coordinator(domain, [HOST], self.ports[name], dns)
            table += f'"{domain}" = ["{HOST}:{self.ports[name]}"]\n'
        self._realm.add_cache("cs1", DC1, [HOST], self.ports["cs1"])
        change(self.cache_file, {("limits", "requests"): REQUESTS})
        static = f'[lookup]\nplugin = "static"\n[lookup.coordinators]\n{table}'
        for file in (self.coordinator_file(DC1), self.coordinator_file(DC2), self.cache_file):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace('[lookup]\nplugin = "dns"\n', static), encoding="utf-8")
        accounts = self._realm.accounts()
        try:
            for user in (f"alice.{DC1}", f"bob.{DC2}"):
                accounts.add_user(user, hash_password(self._password))
        finally:
            accounts.close()

    def start(self) -> None:
        """Start all servers, and wait until they know each other."""
        self._run("ntm-as", "as", self._realm.directory / "as.toml")
        for domain in (DC1, DC2):
            dc = self._run("ntm-dc", domain, self.coordinator_file(domain))
            dc.expect("linked to the account server", _PATIENCE)
        self.start_cache()

    def start_cache(self) -> None:
        """Start the CS, and wait until its DC knows it."""
        self.cs = self._run("ntm-cache", f"cs{len(self._servers)}", self.cache_file)
        self.cs.expect("registered with the coordinator", _PATIENCE)

    def _run(self, plugin: str, name: str, file: Path) -> Server:
        server = Server.start(plugin, file, self.directory / f"{name}.log")
        self._servers.append(server)
        return server

    def close(self) -> None:
        """End the servers and close the devices' files."""
        for device in (getattr(self, "phone", None), getattr(self, "laptop", None)):
            if device is not None:
                device.close()
        for server in reversed(self._servers):
            server.stop()

    # -- its devices

    async def log_in(self, reactor: Any) -> None:
        """Enrol both devices and log in; the receiver publishes its pre-key."""
        self.phone = await self._device(reactor, f"alice@{DC1}", "phone")
        self.laptop = await self._device(reactor, f"bob@{DC2}", "laptop")
        await self.laptop.exchange.publish()
        for device in (self.phone, self.laptop):
            await self.known(reactor, device)

    async def _device(self, reactor: Any, account: str, label: str) -> StoredDevice:
        domain = account.partition("@")[2]
        place = (HOST, self.ports[domain.partition(".")[0]])
        state = self.directory / label
        trust = home_authority(self.authority.read_bytes(), domain, self.authority)
        parsed = Account.parse(account, label, place)
        await enroll(reactor, state, parsed, trust, self._password)
        identity = DeviceIdentity.load(state)
        session = Session.of(await log_in(reactor, identity, [place]), [place])
        pins, store = PinStore(state / PINS), ExchangeStore(state)
        exchange = Exchange(reactor, lambda: session, store, pins)
        return StoredDevice(identity.fqdn, session, pins, store, exchange)

    async def known(self, reactor: Any, device: StoredDevice) -> None:
        """Wait until the CS knows a device's token. :raises Unreachable: it takes too long."""
        end = time.monotonic() + _PATIENCE
        places = [(HOST, self.ports["cs1"])]
        while True:
            server = cache_server(reactor, device.session, CACHE, places, time.time)
            try:
                await server.ask("GET", f"/v1/objects/{bytes(16).hex()}")
            except NoSuchItem:
                return
            except (AuthenticationError, Unreachable):
                if time.monotonic() > end:
                    raise
            finally:
                await server.close()
            await deferLater(reactor, 0.1, lambda: None)
