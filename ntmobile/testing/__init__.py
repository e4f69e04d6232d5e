"""An in-memory network and virtual internet, for this project's tests and for applications'.

Nothing here opens a socket or waits for real time. A test builds hosts, networks, NATs and links,
gives each program under test its host's reactor, and lets virtual time pass::

    from ntmobile.testing import NatKind, VirtualInternet

    internet = VirtualInternet(seed=1)
    server = internet.host("server", "203.0.113.1", "2001:db8::1")
    home = internet.network("home", "192.168.1.0/24", nat=NatKind.PORT_RESTRICTED_CONE)
    phone = home.host("phone")

    server.reactor.listenUDP(4330, Server())
    port = phone.reactor.listenUDP(0, Client())
    port.write(b"hello", ("203.0.113.1", 4330))
    internet.advance(1.0)

    cafe = internet.network("cafe", "10.0.0.0/24", nat=NatKind.SYMMETRIC)
    phone.link.loss = 0.1
    phone.move(to=cafe)
    internet.run_until(lambda: client.answered, limit=5.0)

Times are seconds. Hosts' names and the seed determine all that is random. Where the programs under
test use TLS, see :func:`run_tls_in`.
"""

from __future__ import annotations

from ntmobile.testing.attackers import Recorder, Spoofer, everything, flip, tamper
from ntmobile.testing.clock import ExactClock, HostTimers
from ntmobile.testing.datagrams import Address, Capture, Datagram, Event, Segment, Signal
from ntmobile.testing.gateways import Firewall, Gateway, Router
from ntmobile.testing.hosts import Host, Interface
from ntmobile.testing.internet import VirtualInternet
from ntmobile.testing.links import Link
from ntmobile.testing.nat import Mapping, NatBox, NatKind, NatPolicy
from ntmobile.testing.networks import Network
from ntmobile.testing.protocols import Echo, Mailbox
from ntmobile.testing.reactor import HostReactor
from ntmobile.testing.tls import run_tls_in

__all__ = [
    "Address",
    "Capture",
    "Datagram",
    "Echo",
    "Event",
    "ExactClock",
    "Firewall",
    "Gateway",
    "Host",
    "HostReactor",
    "HostTimers",
    "Interface",
    "Link",
    "Mailbox",
    "Mapping",
    "NatBox",
    "NatKind",
    "NatPolicy",
    "Network",
    "Recorder",
    "Router",
    "Segment",
    "Signal",
    "Spoofer",
    "VirtualInternet",
    "everything",
    "flip",
    "run_tls_in",
    "tamper",
]
