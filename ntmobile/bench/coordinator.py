"""``python -m ntmobile.bench.coordinator``: a DC that does nothing but direct a relay's tunnels.

It has the credentials that ``ntm realm add-dc`` made, takes the link of a relay server, and directs
the tunnels of :mod:`ntmobile.bench.legs` again and again, so that they outlive every pause.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOFactory

from ntmobile.bench import legs
from ntmobile.protocols.link import Link, verify_peer
from ntmobile.protocols.tls import server_context_factory
from ntmobile.servers.configuration import load_coordinator
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.coordination import (
    LinkAcknowledgement,
    RelayRegistration,
    RelayRegistrationResponse,
    RelayResponse,
)
from ntmobile.wire.messages.realtime import Outcome

reactor: Any = installed


def say(line: str) -> None:
    """Write a line for who waits for it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def direct(link: Link, tunnels: int) -> None:
    """Direct every tunnel once."""
    for number in range(tunnels):
        answer = await link.request(legs.direction(number))
        if not isinstance(answer, RelayResponse) or answer.outcome != Outcome.OK:
            raise RuntimeError(f"the relay refuses a tunnel: {answer}")
    say(f"directed {tunnels}")


def listen(file: Path, relay: str, tunnels: int) -> None:
    """Listen where the coordinator of this configuration would."""
    configuration = load_coordinator(file)
    credentials, trust = configuration.identity.credentials(), configuration.identity.trust()
    tls = server_context_factory(credentials.key, credentials.chain, trust, peer_roles=("rs",))

    async def asked(message: Message, link: Link) -> Message | None:
        if isinstance(message, RelayRegistration):
            repeated = LoopingCall(lambda: Deferred.fromCoroutine(direct(link, tunnels)))
            reactor.callLater(0, repeated.start, legs.REPEAT)
            link.closed.addCallback(lambda _: repeated.stop() if repeated.running else None)
            return RelayRegistrationResponse(Outcome.OK, 10)
        return LinkAcknowledgement()

    def accept() -> Link:
        return Link(reactor, asked, verify_peer(("rs", relay)))

    factory = TLSMemoryBIOFactory(tls, False, Factory.forProtocol(accept))
    listening = configuration.listening
    reactor.listenTCP(listening.port, factory, interface=listening.addresses[0])
    say("ready")


def main() -> None:
    """Run for ever: dc.toml, the relay's full name, the number of tunnels."""
    file, relay, tunnels = sys.argv[1:]
    listen(Path(file), relay, int(tunnels))
    reactor.run()


if __name__ == "__main__":
    main()
