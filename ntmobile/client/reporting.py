"""What an agent tells of itself: status, peers, why, netcheck (design, section 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntmobile.client.node import Node
from ntmobile.errors import NTMobileError
from ntmobile.machines.tunnel.constants import INNER_MTU
from ntmobile.machines.tunnel.paths import Path
from ntmobile.machines.tunnel.tunnel import Tunnel


class Reporting:
    """Reads a node and says what it finds, as values for JSON.

    :param attachment: says whether there is a virtual network, or why there is none.
    """

    def __init__(self, node: Node, attachment: Callable[[], str]) -> None:
        self._node = node
        self._attachment = attachment

    def status(self) -> dict[str, Any]:
        """Everything at a glance; at least the fields of the design."""
        node = self._node
        return {
            "fqdn": node.fqdn,
            "virtual": {"ipv4": str(node.certificate.ipv4), "ipv6": str(node.certificate.ipv6)},
            "registered": node.registering.registered,
            "problem": node.registering.problem,
            "attachment": self._attachment(),
            "network": self.network(),
            "tunnels": self.peers(),
        }

    def network(self) -> dict[str, Any]:
        """Own addresses, and each family as the DC sees it."""
        registration = self._node.registering.registration
        observed = {} if registration is None else registration.observed
        return {
            "addresses": list(self._node.networks.addresses),
            "nat": any(translated for _, translated in observed.values()),
            **{
                f"ipv{family}": {
                    "observed": _shown(endpoint.pair()),
                    "nat": translated,
                }
                for family, (endpoint, translated) in sorted(observed.items())
            },
        }

    def peers(self) -> list[dict[str, Any]]:
        """The tunnels, last used first."""
        return [self._tunnel(tunnel) for tunnel in self._node.correspondence.tunnels]

    def _tunnel(self, tunnel: Tunnel) -> dict[str, Any]:
        path, shown = tunnel.active, self._node.shown.of(tunnel.peer)
        return {
            "peer": tunnel.peer,
            "virtual": None
            if shown is None
            else {"ipv4": str(shown.ipv4), "ipv6": str(shown.ipv6)},
            "path": None if path is None else path.kind,
            "remote": None if path is None else _shown(path.remote),
            "relay": None if path is None else path.relay,
            "rtt_ms": None if tunnel.rtt is None else round(tunnel.rtt * 1000, 3),
            "handovers": tunnel.handovers,
            "rx_bytes": tunnel.received_bytes,
            "tx_bytes": tunnel.sent_bytes,
            "established": self._node.established_seconds(tunnel.peer),
        }

    async def why(self, name: str) -> dict[str, Any]:
        """Which paths to a correspondent were considered, what became of them, and why this one."""
        problem = ""
        try:
            name = (await self._node.connect(name)).peer
        except NTMobileError as failed:
            problem = str(failed)
        tunnel = self._node.correspondence.find(name)
        return {
            "peer": name,
            "problem": problem,
            "decision": self._node.directing.history.get(name, ""),
            "tunnel": None if tunnel is None else self._tunnel(tunnel),
            "paths": [] if tunnel is None else [_path(path, tunnel) for path in tunnel.paths],
            "drops": {} if tunnel is None else dict(tunnel.drops),
        }

    async def netcheck(self) -> dict[str, Any]:
        """The network as far as the DC can see it."""
        node = self._node
        registration = node.registering.registration
        return {
            **self.network(),
            "routes": sorted(node.networks.routes),
            "gateways": list(node.networks.gateways),
            "interfaces": node.ways.shown(),
            "udp": node.registering.registered,
            "coordinator": []
            if registration is None
            else [_shown(remote) for remote in registration.session.remotes],
            "keepalive": None if registration is None else registration.interval,
            "ports": {f"ipv{family}": port for family, port in node.traffic.sockets.ports.items()},
            "unsent": dict(node.traffic.sockets.failures),
            "datagrams": node.traffic.sockets.kind,
            "overruns": node.traffic.sockets.overruns,
        }


def _path(path: Path, tunnel: Tunnel) -> dict[str, Any]:
    return {
        "kind": path.kind,
        "remote": _shown(path.remote),
        "relay": path.relay,
        "state": path.state.value,
        "rtt_ms": None if path.rtt is None else round(path.rtt * 1000, 3),
        "unsplit": path.mtu >= INNER_MTU,
        "mtu": path.mtu,
        "active": path is tunnel.active,
    }


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
