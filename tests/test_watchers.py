from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import INetworkWatcher, INetworkWatcherProvider, LocalNetworks
from ntmobile.plugins import find, local_networks
from ntmobile.plugins.local_networks import read_local_networks
from ntmobile.plugins.watch_poll import PollingWatcher

ROOT = Path(__file__).resolve().parent.parent


def watched(plugin: str) -> dict[str, list[dict[str, Any]]]:
    """What a watcher tells in a network namespace of its own, step by step."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        raise SkipTest("network namespaces are Linux', and ip (iproute2) changes them")
    space = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run(
            [*space, "ip", "link", "add", "d9", "type", "veth"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as problem:
        raise SkipTest(f"no network namespace can be made here: {problem}") from None
    done = subprocess.run(
        [*space, sys.executable, str(ROOT / "tests" / "watching_script.py"), plugin],
        check=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return found


class NamespaceTests(SynchronousTestCase):
    """Both watchers in a real network that changes."""

    def told(self, plugin: str) -> None:
        """What every watcher tells."""
        found = watched(plugin)
        nothing: dict[str, Any] = {
            "addresses": [],
            "networks": [],
            "routes": [],
            "gateways": [],
            "ways": [],
        }
        self.assertEqual(found["start"], [nothing])
        last = {name: told[-1] if told else None for name, told in found.items()}
        home = {**nothing, "addresses": ["192.0.2.7"], "networks": ["192.0.2.0/24"]}
        self.assertEqual(last["address"], home)
        way = {"family": 4, "interface": "wlan9", "addresses": ["192.0.2.7"]}
        routed = {**home, "routes": [4], "gateways": ["192.0.2.1"], "ways": [way]}
        self.assertEqual(last["route"], routed)
        both = {
            **routed,
            "addresses": ["192.0.2.7", "2001:db8:9::7"],
            "networks": ["192.0.2.0/24", "2001:db8:9::/64"],
        }
        self.assertEqual(last["both families"], both)
        self.assertEqual(found["tentative"], [])  # a deprecated address is none to be reached by
        second = {"family": 4, "interface": "wlan7", "addresses": ["203.0.113.7"]}
        preferred = last["another way"]
        assert preferred is not None
        self.assertEqual(preferred["ways"], [second, way])  # in order of their metrics
        moved = {
            **both,
            "addresses": ["198.51.100.7", "2001:db8:9::7"],
            "networks": ["198.51.100.0/24", "2001:db8:9::/64"],
            "gateways": ["198.51.100.1"],
            "ways": [{**way, "addresses": ["198.51.100.7"]}],
        }
        self.assertEqual(last["move"], moved)
        again = found["another network with the same address"]
        if plugin == "netlink":  # a look every second cannot tell
            self.assertEqual(again[-1:], [moved])
        self.assertEqual(found["what is of no concern"], [])
        self.assertEqual(found["our own device"], [])
        self.assertEqual(last["down"], nothing)
        up = last["up"]
        assert up is not None
        self.assertIn("198.51.100.7", up["addresses"])
        self.assertEqual(last["gone"], nothing)
        burst = last["burst"]
        assert burst is not None
        self.assertEqual(len(burst["addresses"]), 59)
        self.assertLess(len(found["burst"]), 40)
        self.assertEqual(found["stopped"], [])

    def test_netlink(self) -> None:
        """The netlink watcher tells of addresses, routes and moves, and not of our own devices."""
        self.told("netlink")

    def test_poll(self) -> None:
        """The polling watcher tells the same."""
        self.told("poll")


class PollingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A network that the test changes."""
        self.clock = Clock()
        self.networks = LocalNetworks(("192.0.2.7",))
        self.told: list[LocalNetworks] = []
        self.watcher = PollingWatcher(self.clock, 1.0, lambda: self.networks)

    def test_tells_differences(self) -> None:
        """It tells of a difference within an interval, and of nothing else."""
        self.assertEqual(self.watcher.start(self.told.append), self.networks)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.told, [])
        self.networks = LocalNetworks(("198.51.100.7",))
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.told, [self.networks])

    def test_fault_of_the_listener(self) -> None:
        """A fault in serving one change is logged; the next change is told."""

        def fault(networks: LocalNetworks) -> None:
            self.told.append(networks)
            raise ZeroDivisionError("a fault")

        self.watcher.start(fault)
        for number in range(3):
            self.networks = LocalNetworks((f"192.0.2.{number}",))
            self.clock.advance(1.0)
        self.assertEqual(len(self.told), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_stop(self) -> None:
        """After the end nothing is looked at; ending twice is no error."""
        self.watcher.start(self.told.append)
        self.watcher.stop()
        self.watcher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_interval(self) -> None:
        """The interval is a number of seconds within bounds; other keys are fatal."""
        provider: INetworkWatcherProvider = find(INetworkWatcherProvider, "poll")
        verifyObject(INetworkWatcherProvider, provider)
        verifyObject(INetworkWatcher, provider.configure({"interval": 5}, Clock()))
        for section in ({"interval": 0.01}, {"interval": 61}, {"interval": "1"}, {"every": 1}):
            with self.assertRaises(ConfigurationError):
                provider.configure(section, Clock())

    def test_netlink_has_no_keys(self) -> None:
        """The netlink watcher is found by its name, and takes no keys."""
        provider: INetworkWatcherProvider = find(INetworkWatcherProvider, "netlink")
        verifyObject(INetworkWatcherProvider, provider)
        with self.assertRaises(ConfigurationError):
            provider.configure({"interval": 1}, reactor)


class ReadingTests(SynchronousTestCase):
    def test_here(self) -> None:
        """On this machine it reads something without an error, and no loopback."""
        found = read_local_networks()
        self.assertNotIn("127.0.0.1", found.addresses)
        self.assertNotIn("::1", found.addresses)
        self.assertLessEqual(found.routes, {4, 6})

    def test_without_netlink(self) -> None:
        """Where the kernel does not tell, sockets show what would be sent from."""

        def refuse() -> None:
            raise OSError("no netlink")

        known = read_local_networks()
        self.patch(local_networks, "_read_kernel", refuse)
        found = read_local_networks()
        self.assertEqual(found.networks, ())
        self.assertLessEqual(set(found.addresses), set(known.addresses))
