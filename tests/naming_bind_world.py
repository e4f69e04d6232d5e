"""A small internet with real BIND, for tests/test_naming_bind.py, inside namespaces of its own.

``unshare -Urnm --fork --kill-child python -m tests.naming_bind_world DIRECTORY`` has inside:

- 192.0.2.1: BIND with the zones ``.`` and ``ntm.example``, which delegates to the coordinators,
- 192.0.2.10: BIND as a recursive resolver with ``qname-minimization strict``,
- 192.0.2.53 and 2001:db8::53: the coordinator of ``dc1.ntm.example``; 192.0.2.10 may see clients,
- 192.0.2.54: the coordinator of ``dc2.ntm.example``, with a response rate of nearly nothing.

It asks a list of questions and prints a JSON object: what was asked for, and what came.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from ntmobile.machines.rate import RateLimiter
from ntmobile.machines.zone import VirtualAddresses, Zone
from ntmobile.plugins.lookup_dns import DnsLookup
from ntmobile.protocols.naming import NameServer, listen

PARENT = "192.0.2.1"
RESOLVER = "192.0.2.10"
STRANGER = "192.0.2.99"
DC1 = ("192.0.2.53", "2001:db8::53")
DC2 = "192.0.2.54"

COMMON = """
options {{
    directory "{directory}";
    pid-file none;
    session-keyfile none;
    lock-file none;
    listen-on port 53 {{ {address}; }};
    listen-on-v6 {{ none; }};
    dnssec-validation no;
    empty-zones-enable no;
    {options}
}};
controls {{ }};
logging {{ channel all {{ stderr; severity debug 1; print-category yes; }};
          category default {{ all; }}; category lame-servers {{ all; }}; }};
"""

PARENT_ZONES = """
zone "." {{ type primary; file "{directory}/root.zone"; }};
zone "ntm.example" {{ type primary; file "{directory}/parent.zone"; }};
"""

ROOT_ZONE = """$TTL 300
. IN SOA a.root. root.root. 1 3600 600 86400 30
. IN NS a.root.
a.root. IN A 192.0.2.1
ntm.example. IN NS ns.ntm.example.
ns.ntm.example. IN A 192.0.2.1
"""

PARENT_ZONE = """$TTL 300
@ IN SOA ns root 1 3600 600 86400 30
@ IN NS ns
ns IN A 192.0.2.1
dc1 IN NS ns.dc1
ns.dc1 IN A 192.0.2.53
ns.dc1 IN AAAA 2001:db8::53
dc2 IN NS ns.dc2
ns.dc2 IN A 192.0.2.54
dead IN NS ns.dead
ns.dead IN A 192.0.2.55
alias IN CNAME dc1
"""

RESOLVER_ZONES = """
zone "." {{ type hint; file "{directory}/hints.zone"; }};
"""

HINTS = """. 3600 IN NS a.root.
a.root. 3600 IN A 192.0.2.1
"""


class Clients:
    """Alice's phone."""

    def virtual_addresses(self, name: str) -> VirtualAddresses | None:
        if name in ("phone.alice.dc1.ntm.example", "alice.dc1.ntm.example"):
            return IPv6Address("fd12::20"), IPv4Address("198.18.0.20")
        return None

    def has_below(self, name: str) -> bool:
        return name in ("alice.dc1.ntm.example", "bob.dc1.ntm.example")


class Named:
    """A running BIND."""

    def __init__(self, directory: Path, address: str, zones: str, options: str) -> None:
        directory.mkdir()
        configuration = COMMON.format(directory=directory, address=address, options=options)
        (directory / "named.conf").write_text(configuration + zones.format(directory=directory))
        self.log = directory / "log"
        # A copy: AppArmor ties the installed one, by its path, to the system's directories.
        program = shutil.copy(shutil.which("named") or "named", directory / "named")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-f", "-4", "-n", "1", "-c", str(directory / "named.conf")],
                stdout=log,
                stderr=log,
            )

    def running(self) -> bool:
        """Whether it has loaded its zones."""
        if self._process.poll() is not None:
            raise SystemExit(f"named ended: {self.log.read_text()[-2000:]}")
        return b"running" in self.log.read_bytes()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)


def prepare() -> None:
    """Bring up the loopback with our addresses."""
    addresses = [PARENT, RESOLVER, STRANGER, *DC1, DC2]
    commands = ["link set lo up", *(f"address add {each} dev lo" for each in addresses)]
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


def dig(server: str, *words: str, source: str | None = None) -> dict[str, Any]:
    """Ask with dig; gives status, flags, sections, and whether TCP had to be used."""
    options = ["+nocmd", "+tries=1", "+time=8", "+noidnin", "+noidnout", "+nottlid"]
    origin = ["-b", source] if source else []
    done = subprocess.run(
        ["dig", f"@{server}", *origin, *options, *words], capture_output=True, text=True, timeout=30
    )
    found: dict[str, Any] = {"text": done.stdout, "status": None, "flags": []}
    section = ""
    for line in done.stdout.splitlines():
        if "status:" in line:
            found["status"] = line.split("status: ")[1].split(",")[0]
        elif line.startswith(";; flags:"):
            found["flags"] = line.removeprefix(";; flags:").split(";")[0].split()
        elif line.startswith(";;") and line.endswith(" SECTION:"):
            section = line[3:].split()[0].lower()
            found[section] = []
        elif line and (not line.startswith(";") or section == "question"):
            found.setdefault(section, []).append(" ".join(line.lstrip(";").split()))
    found["tcp"] = "retrying in TCP" in done.stdout or "(TCP)" in done.stdout
    return found


async def until(ready: Callable[[], bool]) -> None:
    """Wait for a condition, at most 15 seconds."""
    for _ in range(300):
        if ready():
            return
        await deferLater(reactor, 0.05)
    raise SystemExit("not ready in time")


async def lookups(nameserver: str) -> dict[str, str]:
    """What the ``dns`` lookup says through BIND."""
    lookup = DnsLookup(reactor, lambda: [(nameserver, 53)], timeout=8.0)
    found = {}
    for domain in ("dc1", "nobody", "dead", "alias"):
        try:
            found[domain] = repr(await lookup.find(f"{domain}.ntm.example"))
        except Exception as problem:
            found[domain] = f"{type(problem).__name__}: {problem}"
    return found


async def questions() -> dict[str, Any]:
    """All questions and their answers."""
    asked = {
        "device": (RESOLVER, "phone.alice.dc1.ntm.example", "AAAA"),
        "device4": (RESOLVER, "phone.alice.dc1.ntm.example", "A"),
        "user": (RESOLVER, "alice.dc1.ntm.example", "AAAA"),
        "deviceless user": (RESOLVER, "bob.dc1.ntm.example", "AAAA"),
        "nobody": (RESOLVER, "tablet.alice.dc1.ntm.example", "A"),
        "tcp": (RESOLVER, "_ntm._tcp.dc1.ntm.example", "SRV"),
        "udp": (RESOLVER, "_ntm._udp.dc1.ntm.example", "SRV"),
        "empty": (RESOLVER, "_udp.dc1.ntm.example", "A"),
        "ns": (RESOLVER, "dc1.ntm.example", "NS"),
        "soa": (RESOLVER, "dc1.ntm.example", "SOA"),
        "host": (RESOLVER, "ns.dc1.ntm.example", "AAAA"),
        "any": (RESOLVER, "dc1.ntm.example", "ANY"),
        "case": (DC1[0], "pHone.aLice.DC1.ntm.example", "A", "-b", RESOLVER),
        "stranger": (DC1[0], "phone.alice.dc1.ntm.example", "A", "-b", STRANGER),
        "invented": (DC1[0], "no.body.dc1.ntm.example", "A", "-b", STRANGER),
        "ipv6": (DC1[1], "dc1.ntm.example", "SOA"),
        "transfer": (DC1[0], "dc1.ntm.example", "AXFR"),
        "big": (DC2, "ns.dc2.ntm.example", "A", "+noedns"),
        "big through BIND": (RESOLVER, "ns.dc2.ntm.example", "A", "+noedns"),
    }
    found: dict[str, Any] = {}
    for name, (server, *words) in asked.items():
        found[name] = await deferToThread(dig, server, *words)
    for number in range(4):
        name = f"x{number}.dc2.ntm.example"
        found[f"limited {number}"] = await deferToThread(dig, RESOLVER, name, "A")
    return found


async def main(directory: Path) -> None:
    """Build the world, ask, print."""
    prepare()
    zones = directory / "zones"
    zones.mkdir()
    parent_options = "recursion no; allow-transfer { none; };"
    resolver_options = (
        "recursion yes; allow-query { any; }; allow-recursion { any; }; max-cache-size 8m; "
        "qname-minimization strict; query-source address 192.0.2.10;"
    )
    parent_zones = PARENT_ZONES.replace("{directory}", str(zones))
    resolver_zones = RESOLVER_ZONES.replace("{directory}", str(zones))
    for file, text in (
        ("root.zone", ROOT_ZONE),
        ("parent.zone", PARENT_ZONE),
        ("hints.zone", HINTS),
    ):
        (zones / file).write_text(text)
    servers = [
        Named(directory / "parent", PARENT, parent_zones, parent_options),
        Named(directory / "resolver", RESOLVER, resolver_zones, resolver_options),
    ]
    friends = (ip_network(f"{RESOLVER}/32"),)
    own = tuple(map(ip_address, DC1))
    many = (ip_address(DC2), *(ip_address("198.51.100.1") + each for each in range(50)))
    first = NameServer(Zone("dc1.ntm.example", Clients(), own, networks=friends), reactor)
    second = NameServer(
        Zone("dc2.ntm.example", Clients(), many), reactor, RateLimiter(rate=0.001, burst=1)
    )
    ports = [listen(reactor, first, address) for address in DC1] + [listen(reactor, second, DC2)]
    try:
        await until(lambda: all(server.running() for server in servers))
        found = await questions()
        found["lookups"] = await lookups(RESOLVER)
        found["log"] = servers[1].log.read_text()
        found["counts"] = [dict(server.counts) for server in (first, second)]
        print(json.dumps(found))
    finally:
        for server in servers:
            server.stop()
        for port in ports:
            await port.stop()


if __name__ == "__main__":
    if os.geteuid() != 0 or not shutil.which("named"):
        raise SystemExit("run me as root of a namespace, with named installed")
    react(lambda reactor: Deferred.fromCoroutine(main(Path(sys.argv[1]))))
