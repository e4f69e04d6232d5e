"""The realm that ``ntm bench load`` measures: in a directory of its own, as real processes.

A hundred thousand logins would take longer than the measurement. So the DC recovers its clients as
it does after any restart: from its location store, which is written beforehand.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path
from typing import Final

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ntmobile
from ntmobile.bench.load_clients import LoadClient
from ntmobile.errors import Unreachable
from ntmobile.interfaces import StoredClient
from ntmobile.lab import kernel
from ntmobile.machines.signalling.clients import Client, Policy
from ntmobile.plugins.files import write_file
from ntmobile.plugins.location_database import LocationDatabase
from ntmobile.servers.authority import Signer, issue_device
from ntmobile.servers.configuration import load_coordinator
from ntmobile.servers.credentials import load_signer
from ntmobile.servers.passwords import hash_password
from ntmobile.servers.realm import Realm
from ntmobile.servers.realm_files import change
from ntmobile.servers.storing import to_store
from ntmobile.wire import virtual
from ntmobile.wire.certificates import DeviceCertificate

HOST: Final = "127.0.0.1"
REALM: Final = "ntm.example"
DOMAIN: Final = f"dc1.{REALM}"
USER: Final = "alice"
#: Devices of one user.
DEVICES: Final = ("phone", "laptop")
#: Seconds that the clients' sessions and certificates last.
LIFETIME: Final = 86400.0
#: Virtual addresses for so many clients.
POOL: Final = "198.0.0.0/8"
_TWISTD: Final = "from twisted.scripts.twistd import run; run()"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@define(eq=False)
class Server:
    """A service in the foreground, which ends with this process; its log is a file."""

    name: str
    log: Path
    _process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, plugin: str, config: Path, log: Path) -> Server:
        """Start a ``twistd`` plugin."""
        words = ["--nodaemon", "--pidfile=", "--logfile=-", plugin, f"--config={config}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _TWISTD, *words],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(kernel.die_with_parent, signal.SIGKILL),
            )
        return cls(plugin, log, process)

    def expect(self, text: str, timeout: float) -> None:
        """Wait until a text is in its log. :raises Unreachable: it ended, or takes too long."""
        end = time.monotonic() + timeout
        while text not in self.log.read_text("utf-8", "replace"):
            if self._process.poll() is not None or time.monotonic() > end:
                raise Unreachable(f"{self.name} did not say {text!r}: {self._last()}")
            time.sleep(0.02)

    def _last(self) -> str:
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def problems(self) -> list[str]:
        """Lines of its log that tell of something wrong."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if " WARN" in line or " ERROR" in line]

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def rss(self, field: str = "VmRSS") -> int:
        """Resident memory, bytes; with ``VmHWM`` the most that it ever was."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise Unreachable(f"{self.name} ended: {self._last()}")

    def cpu(self) -> tuple[float, float]:
        """CPU seconds so far: of its reactor's thread, and of all its threads."""
        pid = self._process.pid
        try:
            return processor_seconds(f"/proc/{pid}/task/{pid}/stat"), processor_seconds(
                f"/proc/{pid}/stat"
            )
        except OSError:
            raise Unreachable(f"{self.name} ended: {self._last()}") from None

    def stop(self) -> None:
        """End it in order, or at all."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def environment() -> dict[str, str]:
    """So that the processes find the ntmobile that this is, and log as is looked for."""
    root = str(Path(ntmobile.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name != "NTM_LOG"}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def processor_seconds(file: str) -> float:
    """Seconds of the processor that a process or thread has had, by its ``stat`` file."""
    values = Path(file).read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / _TICKS


@define(eq=False)
class LoadRealm:
    """One AS and one DC.

    :ivar directory: empty; everything is written there.
    """

    directory: Path
    port: int = 0
    dc: Server = field(init=False)
    password: Path = field(init=False)
    _realm: Realm = field(init=False)
    _servers: list[Server] = field(factory=list, init=False)

    def make(self) -> None:
        """Authority, configurations, and one user who can log in."""
        as_port, self.port, dns_port = free_ports(3)
        self._realm = Realm.create(self.directory / "realm", REALM, [HOST], as_port)
        made = self._realm.add_coordinator(DOMAIN, [HOST], self.port, dns_port)
        change(made.file, {("virtual", "pool"): POOL})
        password = secrets.token_urlsafe(12)
        self.password = self.directory / "password"
        write_file(self.password, password.encode())
        accounts = self._realm.accounts()
        try:
            accounts.add_user(f"{USER}.{DOMAIN}", hash_password(password))
        finally:
            accounts.close()

    @property
    def bundle(self) -> Path:
        """The realm's authority."""
        return self._realm.directory / "ca.pem"

    @property
    def state(self) -> Path:
        """The DC's state directory."""
        return load_coordinator(self._dc_toml).state

    @property
    def _dc_toml(self) -> Path:
        return self._realm.directory / DOMAIN / "dc.toml"

    def start_account_server(self) -> None:
        """Start the AS, which gives the DC its lease."""
        log = self.directory / "as.log"
        self._servers.append(Server.start("ntm-as", self._realm.directory / "as.toml", log))

    def start_coordinator(self, clients: int) -> None:
        """Start the DC, and wait until it works; it recovers so many clients."""
        log = self.directory / f"dc{len(self._servers)}.log"
        self.dc = Server.start("ntm-dc", self._dc_toml, log)
        self._servers.append(self.dc)
        self.dc.expect(f"{DOMAIN}: {clients} clients restored", 30 + clients / 1000)
        self.dc.expect("linked to the account server", 30)

    def start_relay(self) -> None:
        """Start an RS, which the DC directs for every direction; it has room for all of them."""
        (port,) = free_ports(1)
        made = self._realm.add_relay("rs1", DOMAIN, [HOST], port)
        change(made.file, {("limits", "tunnels"): 1 << 20})
        relay = Server.start("ntm-relay", made.file, self.directory / "rs.log")
        self._servers.append(relay)
        relay.expect("registered with", 30)

    def stop_coordinator(self) -> None:
        """End the DC."""
        self.dc.stop()

    def close(self) -> None:
        """End all."""
        for server in reversed(self._servers):
            server.stop()

    def write_clients(self, count: int, tell: Callable[[int], None]) -> list[LoadClient]:
        """Write the store of a DC where so many clients have logged in; the clients.

        :param tell: told now and then how many are written.
        """
        configuration = self._realm.account_server()
        signer = load_signer(configuration.device_ca_certificate, configuration.device_ca_key)
        for file in self.state.glob("locations.sqlite*"):
            file.unlink()  # the devices of the real logins
        database = LocationDatabase(self.state / "locations.sqlite")
        made: list[LoadClient] = []
        try:
            logins = logins_of(count, signer)
            while batch := list(islice(logins, 2000)):
                database.assign([_assignment(certificate) for _, certificate in batch])
                database.write([stored_client(*one, len(made) + 1) for one in batch], [], 0)
                made += [client for client, _ in batch]
                tell(len(made))
        finally:
            database.close()
        return made


def logins_of(count: int, device_ca: Signer) -> Iterator[tuple[LoadClient, DeviceCertificate]]:
    """What as many logins leave at clients and DC."""
    pool = IPv4Network(POOL)
    first, _ = virtual.hosts_in(pool)
    for number in range(count):
        device = DEVICES[number % len(DEVICES)]
        fqdn = f"{device}.u{number // len(DEVICES):06}.{DOMAIN}"
        key = Ed25519PrivateKey.generate()
        certificate = issue_device(
            device_ca,
            fqdn=fqdn,
            identity=key.public_key().public_bytes_raw(),
            x25519=secrets.token_bytes(32),
            xwing_hash=secrets.token_bytes(32),
            ipv6=virtual.address_of(DOMAIN, fqdn),
            ipv4=pool[first + number],
            now=time.time(),
            lifetime=LIFETIME,
        )
        index, session_key = secrets.token_bytes(8), secrets.token_bytes(32)
        yield LoadClient(fqdn, index, session_key, key.private_bytes_raw()), certificate


def _assignment(certificate: DeviceCertificate) -> tuple[str, bytes, bytes]:
    return certificate.fqdn, certificate.ipv6.packed, certificate.ipv4.packed


def stored_client(client: LoadClient, certificate: DeviceCertificate, order: int) -> StoredClient:
    """As the DC stores a client that logged in and registered."""
    kept = Client(certificate, client.index, 0.0, Policy((f"*.{REALM}",)))
    kept.order = order
    return to_store(kept, client.key, certificate.not_after)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that are free for TCP and UDP at this moment."""
    held: list[socket.socket] = []
    found: list[int] = []
    try:
        while len(found) < count:
            stream, datagram = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
            held += [stream, datagram]
            stream.bind((HOST, 0))
            port = int(stream.getsockname()[1])
            with suppress(OSError):
                datagram.bind((HOST, port))
                found.append(port)
    finally:
        for one in held:
            one.close()
    return found
