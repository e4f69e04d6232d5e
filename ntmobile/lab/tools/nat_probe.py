"""Find out how a NAT maps and filters (RFC 4787), with two ``reflector.py`` in the world outside.

Usage: ``nat_probe.py FIRST SECOND PORT``. Prints JSON: the local address, whether it is translated,
``mapping`` and ``filtering``: ``endpoint-independent``, ``address-dependent`` (filtering only) or
``address-and-port-dependent``.
"""

from __future__ import annotations

import json
import socket
import sys

#: Seconds that an answer may take; also how long to wait for what should not come.
PATIENCE = 0.3
TRIES = 5


class Outside:
    """The reflectors, asked over one local socket."""

    def __init__(self, addresses: list[str], port: int) -> None:
        self._family = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
        self._servers = [(address, port) for address in addresses]
        self.socket = self.fresh()

    def fresh(self) -> socket.socket:
        """Open a socket that no mapping belongs to yet."""
        opened = socket.socket(self._family, socket.SOCK_DGRAM)
        opened.bind(("", 0))
        opened.settimeout(PATIENCE)
        return opened

    def ask(self, word: str, server: int, opened: socket.socket) -> tuple[str, int] | None:
        """Ask one reflector; None if no answer comes through."""
        for _ in range(TRIES if word != "other-port" else 1):
            opened.sendto(word.encode(), self._servers[server])
            try:
                address, port = opened.recv(2048).decode().split()
            except TimeoutError:
                continue
            return address, int(port)
        return None

    def unsolicited(self, target: tuple[str, int]) -> bool:
        """Have the second reflector send to a mapping that never sent to it."""
        with self.fresh() as other:
            self.ask(f"send {target[0]} {target[1]}", 1, other)
        try:
            return self.socket.recv(2048) == b"unsolicited"
        except TimeoutError:
            return False


def probe(addresses: list[str], port: int) -> dict[str, object]:
    """Ask in an order in which no question opens the way for the answer to a later one."""
    outside = Outside(addresses, port)
    first = outside.ask("reflect", 0, outside.socket)
    if first is None:
        return {"reachable": False}
    if outside.unsolicited(first):
        filtering = "endpoint-independent"
    elif outside.ask("other-port", 0, outside.socket) is not None:
        filtering = "address-dependent"
    else:
        filtering = "address-and-port-dependent"
    second = outside.ask("reflect", 1, outside.socket)
    with socket.socket(outside.socket.family, socket.SOCK_DGRAM) as route:
        route.connect((addresses[0], port))
        local = route.getsockname()[0], outside.socket.getsockname()[1]
    return {
        "reachable": True,
        "local": local,
        "mapped": [first, second],
        "translated": local != first,
        "mapping": "endpoint-independent" if first == second else "address-and-port-dependent",
        "filtering": filtering,
    }


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1:3], int(sys.argv[3]))))
