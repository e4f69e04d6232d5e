"""Watches a network namespace of its own while it changes it; prints what it was told, as JSON.

Run by ``tests/test_watchers.py`` with ``unshare``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ntmobile.interfaces import INetworkWatcherProvider, LocalNetworks
from ntmobile.plugins import find

#: The step whose commands take so little time together that nobody sees a state between them.
AT_ONCE = "another network with the same address"
#: Steps: a name, and commands of ip(8).
STEPS = {
    "address": [
        "link add wlan9 type veth peer name far9",
        "link set far9 up",
        "address add 192.0.2.7/24 dev wlan9",
        "link set wlan9 up",
    ],
    "route": ["route add default via 192.0.2.1 dev wlan9"],
    "both families": ["address add 2001:db8:9::7/64 dev wlan9 nodad"],
    "tentative": ["address add 2001:db8:9::8/64 dev wlan9 preferred_lft 0 nodad"],
    "another way": [
        "link add wlan7 type veth peer name far7",
        "link set far7 up",
        "route replace default via 192.0.2.1 dev wlan9 metric 100",
        "route delete default via 192.0.2.1 dev wlan9 metric 0",
        "address add 203.0.113.7/24 dev wlan7",
        "link set wlan7 up",
        "route add default via 203.0.113.1 dev wlan7 metric 50",
    ],
    "one way": ["link delete wlan7"],
    "move": [
        "address delete 192.0.2.7/24 dev wlan9",
        "address add 198.51.100.7/24 dev wlan9",
        "route add default via 198.51.100.1 dev wlan9",
    ],
    AT_ONCE: [
        "address delete 198.51.100.7/24 dev wlan9",
        "address add 198.51.100.7/24 dev wlan9",
        "route add default via 198.51.100.1 dev wlan9",
    ],
    "what is of no concern": [
        "link add wlan6 type veth peer name far6",
        "address add 10.9.9.9/32 dev wlan6",
        "address delete 10.9.9.9/32 dev wlan6",
        "link delete wlan6",
    ],
    "our own device": [
        "link add ntm9 type veth peer name nfar9",
        "link set nfar9 up",
        "address add 198.18.0.7/15 dev ntm9",
        "link set ntm9 up",
    ],
    "down": ["link set wlan9 down"],
    "up": ["link set wlan9 up", "route replace default via 198.51.100.1 dev wlan9"],
    "gone": ["link delete wlan9"],
}


def shown(networks: LocalNetworks) -> dict[str, Any]:
    """For JSON."""
    return {
        "addresses": networks.addresses,
        "networks": networks.networks,
        "routes": sorted(networks.routes),
        "gateways": networks.gateways,
        "ways": [
            {"family": way.family, "interface": way.interface, "addresses": way.addresses}
            for way in networks.ways
        ],
    }


def commands() -> Iterator[tuple[str, list[list[str]]]]:
    """The steps, and a burst of changes."""
    for name, lines in STEPS.items():
        if name == AT_ONCE:
            batch = "\n".join(lines)
            yield name, [["sh", "-c", f"printf '{batch}' | ip -batch -"]]
        else:
            yield name, [["ip", *line.split()] for line in lines]
    burst = ["link add wlan8 type veth peer name far8", "link set far8 up", "link set wlan8 up"]
    burst += [f"address add 203.0.113.{n}/24 dev wlan8" for n in range(1, 60)]
    yield "burst", [["ip", *line.split()] for line in burst]


async def watch(plugin: str) -> dict[str, list[dict[str, Any]]]:
    """Carry the steps out; what was told in each."""
    provider: INetworkWatcherProvider = find(INetworkWatcherProvider, plugin)
    watcher = provider.configure({"interval": 0.1} if plugin == "poll" else {}, reactor)
    told: list[LocalNetworks] = []
    found = {"start": [shown(watcher.start(told.append))]}
    for name, steps in commands():
        told.clear()
        for step in steps:
            subprocess.run(step, check=True, capture_output=True)
        await deferLater(reactor, 0.25)
        found[name] = [shown(one) for one in told]
    watcher.stop()
    told.clear()
    subprocess.run(["ip", "link", "delete", "wlan8"], check=True)
    await deferLater(reactor, 0.2)
    found["stopped"] = [shown(one) for one in told]
    return found


def main() -> None:
    """Watch with the plugin named, and print."""

    async def run() -> None:
        try:
            print(json.dumps(await watch(sys.argv[1])))
        finally:
            reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()))
    reactor.run()


if __name__ == "__main__":
    main()
