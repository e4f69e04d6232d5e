"""The DNS of the demo: a resolver that knows which coordinator serves which domain, and asks it.

``python -m ntmobile.demo.programs.resolver ADDRESS DOMAIN=SERVER ...`` stands for the resolver of
an access network and the delegations above it. Every answer is the coordinators' own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

Address = tuple[str, int]


class Resolver(DatagramProtocol):
    """Passes questions on, and answers back.

    :param servers: domain → address of its name server.
    """

    noisy = False

    def __init__(self, servers: Mapping[str, str]) -> None:
        self._servers = servers
        self._asked: dict[tuple[str, bytes], Address] = {}

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """A question of a host, or the answer of a server."""
        if len(datagram) < 12 or self.transport is None:
            return
        if datagram[2] & 0x80:
            asker = self._asked.pop((addr[0], datagram[:2]), None)
            if asker is not None:
                # Not authoritative here; recursion is what this is for.
                flags = bytes((datagram[2] & ~0x04, datagram[3] | 0x80))
                self.transport.write(datagram[:2] + flags + datagram[4:], asker)
            return
        server = self._server(datagram)
        if server is None:
            refused = datagram[:2] + bytes((datagram[2] | 0x80, 0x85)) + datagram[4:]
            self.transport.write(refused, addr)
            return
        if len(self._asked) > 1000:
            self._asked.clear()
        self._asked[(server, datagram[:2])] = addr
        self.transport.write(datagram, (server, 53))

    def _server(self, datagram: bytes) -> str | None:
        message = dns.Message()
        try:
            message.fromStr(datagram)
            name = message.queries[0].name.name.decode("ascii").lower()
        except (EOFError, IndexError, ValueError):
            return None
        domains = [one for one in self._servers if name == one or name.endswith(f".{one}")]
        return self._servers[max(domains, key=len)] if domains else None


def main() -> None:
    """Serve as the command line says."""
    address, *delegations = sys.argv[1:]
    servers = dict(delegation.split("=") for delegation in delegations)
    reactor: Any = _reactor
    reactor.listenUDP(53, Resolver(servers), interface=address)
    print("ready", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
