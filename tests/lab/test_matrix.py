"""Every pair of access networks ends as the design's route table says (section 5)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ntmobile.testbed.device import Device
from ntmobile.testbed.traffic import Servers, ping, ssh, start_sshd
from tests.lab.platform_case import PlatformTestCase

#: What each pair ends with, whoever asks. Hosts are those of :mod:`ntmobile.testbed.standing`.
OUTCOMES = {
    # Both global, or one of them: the family they have in common, directly.
    ("global4", "dual"): "direct",
    ("global6", "dual"): "direct",
    ("global4", "home"): "direct",
    ("global4", "symmetric"): "direct",
    ("global4", "carrier"): "direct",
    ("dual", "home"): "direct",
    ("dual", "symmetric"): "direct",
    ("dual", "carrier"): "direct",
    # Each side's own probes open its firewall for the other's.
    ("global6", "firewall6"): "direct",
    ("dual", "firewall6"): "direct",
    # Different NATs.
    ("home", "symmetric"): "relay",
    ("home", "carrier"): "relay",
    ("symmetric", "carrier"): "relay",
    ("home", "guest"): "relay",
    # No common family.
    ("global4", "global6"): "relay",
    ("global4", "firewall6"): "relay",
    ("global6", "home"): "relay",
    ("global6", "symmetric"): "relay",
    ("global6", "carrier"): "relay",
    ("home", "firewall6"): "relay",
    ("symmetric", "firewall6"): "relay",
    ("carrier", "firewall6"): "relay",
    # Behind one NAT: private addresses where they answer, else relay.
    ("home", "home-b"): "direct",
    ("carrier", "carrier-b"): "relay",
    ("guest", "guest-b"): "relay",
}

#: Pairs over which an ssh session is held.
SSH = {("global4", "home"), ("home", "carrier"), ("global6", "symmetric"), ("home", "home-b")}

_servers = Servers()


class MatrixTests(PlatformTestCase):
    """For each pair, in both directions of who asks: ping, the path, iperf3."""

    async def check(self, first: str, second: str, path: str) -> None:
        """Have each ask for the other, from no tunnel."""
        platform = await self.platform()
        one, other = platform.devices[first], platform.devices[second]
        for mn, cn, family in ((one, other, "-6"), (other, one, "-4")):
            await self.converse(mn, cn, family, path)
            if family == "-6":
                await self.end(mn, cn)
        if (first, second) in SSH:
            await start_sshd(other)
            done = await one.run(ssh(other, ["hostname"]))
            self.assertEqual(done.stdout, f"{second}\n")

    async def converse(self, mn: Device, cn: Device, family: str, path: str) -> None:
        self.assertIsNone(mn.tunnel(cn))
        self.assertIsNone(cn.tunnel(mn))
        await ping(mn, cn.fqdn, family)

        async def settled() -> bool:
            ends = (mn.tunnel(cn), cn.tunnel(mn))
            return all(end is not None and end["path"] == path for end in ends)

        await self.eventually(
            settled,
            timeout=5,
            what=f"{path} from {mn.fqdn} {mn.ask('why', name=cn.fqdn)}"
            f" and back {cn.ask('why', name=mn.fqdn)}",
        )
        flow = await _servers.iperf(mn, cn, family)
        self.assertGreaterEqual(flow.bytes, 1_000_000)
        status = (await mn.ntm("status", "--json")).json()
        [tunnel] = [one for one in status["tunnels"] if one["peer"] == cn.fqdn]
        self.assertEqual(tunnel["path"], path)
        self.assertGreater(tunnel["rx_bytes"], flow.bytes)


def _test(first: str, second: str, path: str) -> Callable[..., Coroutine[Any, Any, None]]:
    async def test(self: MatrixTests) -> None:
        await self.check(first, second, path)

    test.__doc__ = f"{first} and {second} reach each other: {path}."
    return test


for (_first, _second), _path in OUTCOMES.items():
    _name = f"test_{_first}_{_second}".replace("-", "_")
    setattr(MatrixTests, _name, _test(_first, _second, _path))
