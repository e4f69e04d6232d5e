"""How long the first datagram to a correspondent waits for its answer."""

from __future__ import annotations

from statistics import median

from ntmobile.lab.forwarder import Impairment
from ntmobile.testbed.traffic import ping
from tests.lab.platform_case import PlatformTestCase

#: Tunnels that are set up for each pair.
SAMPLES = 5
#: Longest median in milliseconds: ten times the bar of the design (section 9).
LIMIT = 250


class SetUpTests(PlatformTestCase):
    """The first ping after no tunnel, to an address that is known: it brings the tunnel up."""

    async def first_answers(
        self, mn: str, cn: str, limit: float = LIMIT, *, lossy: bool = False
    ) -> None:
        """Set tunnels up, and print the times; their median must be below the limit.

        :param lossy: the line may lose a ping itself, which then is no sample.
        """
        platform = await self.platform()
        asking, asked = platform.devices[mn], platform.devices[cn]
        await ping(asking, asked.fqdn)
        rtts: list[float] = []
        for _ in range(2 * SAMPLES):
            await self.end(asking, asked)
            rtts += await ping(asking, asked.virtual["ipv6"], timeout=2, lossy=lossy)
            if len(rtts) == SAMPLES:
                break
        settled = await ping(asking, asked.virtual["ipv6"], count=3, lossy=lossy)
        shown = " ".join(f"{ms:.1f}" for ms in rtts)
        print(f"\n  {mn} to {cn}: {shown} ms; in the tunnel {settled[0]:.1f} ms", end=" ")
        self.assertLess(median(rtts), limit)

    async def test_global(self) -> None:
        """Both global, of two domains."""
        await self.first_answers("global6", "dual")

    async def test_one_domain(self) -> None:
        """Both global, of one domain."""
        await self.first_answers("global4", "dual")

    async def test_to_nat(self) -> None:
        """To a device behind a NAT, which is the initiator."""
        await self.first_answers("global4", "home")

    async def test_from_nat(self) -> None:
        """From a device behind a NAT."""
        await self.first_answers("home", "global4")

    async def test_nats(self) -> None:
        """Both behind NATs: through a relay."""
        await self.first_answers("home", "symmetric")

    async def test_one_nat(self) -> None:
        """Both behind one NAT: on private addresses."""
        await self.first_answers("home", "home-b")

    async def test_families(self) -> None:
        """From IPv4 to IPv6: through a relay."""
        await self.first_answers("global4", "global6")

    async def test_firewall(self) -> None:
        """To a device whose firewall drops what nobody asked for: through a relay at first."""
        await self.first_answers("dual", "firewall6")

    async def test_far(self) -> None:
        """From a device whose line adds 50 ms to every round trip, and loses 1 %."""
        platform = await self.platform()
        host, network = platform.lab.clients["global4"], platform.lab.networks["global4"]
        await host.attachment.unplug()
        await host.plug(network, impairment=Impairment(delay=0.025, loss=0.01))
        await platform.devices["global4"].ready()
        for peer in ("dual", "home"):
            await self.first_answers("global4", peer, 10 * 4 * 50, lossy=True)
