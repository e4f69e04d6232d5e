"""One busy tunnel starves nobody: not other tunnels, nor the device's talk with its coordinator."""

from __future__ import annotations

from statistics import median
from time import monotonic, sleep

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from ntmobile.lab.measure import Throughput, iperf
from ntmobile.testbed.device import Device
from tests.lab.platform_case import PlatformTestCase

#: Seconds of the busy flow, and the most that a round trip of another tunnel may take beside it.
SECONDS = 5.0
PATIENCE = 1.0
#: Bytes after which a tunnel counts as busy.
BUSY = 5_000_000


class FairnessTests(PlatformTestCase):
    """A device that sends, or receives, as much as it can."""

    async def beside(self, *, reverse: bool) -> None:
        """Ping in another tunnel, and make a third one, while one carries a flow of TCP."""
        platform = await self.platform()
        busy, peer = platform.devices["global4"], platform.devices["dual"]
        other, third = platform.devices["home"], platform.devices["carrier"]
        await busy.ntm("ping", "-c", "1", other.fqdn)
        await busy.ntm("ping", "-c", "1", peer.fqdn)
        flow: Deferred[Throughput] = Deferred.fromCoroutine(
            iperf(
                busy.host,
                peer.host,
                peer.virtual["ipv6"],
                seconds=SECONDS,
                reverse=reverse,
                client_prefix=busy.inside,
                server_prefix=peer.inside,
            )
        )
        times = await deferToThread(self._ping, busy, peer, other)
        began = monotonic()
        await busy.ntm("ping", "-c", "1", third.fqdn)
        took = monotonic() - began
        running = not flow.called
        carried = await flow
        rate = carried.bits_per_second / 1e6
        print(
            f"\n  beside {rate:.0f} Mbit/s: round trips median {median(times):.1f} ms, longest"
            f" {max(times):.1f} ms; a new tunnel, command included, {took * 1000:.0f} ms",
            end=" ",
        )
        self.assertTrue(running, "the flow ended before all was measured")
        self.assertGreater(rate, 10)
        self.assertLess(max(times), PATIENCE * 1000)
        self.assertLess(took, 5 * PATIENCE)

    def _ping(self, device: Device, busy: Device, peer: Device) -> list[float]:
        """Milliseconds of round trips one after another, in the midst of the flow."""
        deadline, before = monotonic() + SECONDS, self._carried(device, busy)
        while self._carried(device, busy) < before + BUSY and monotonic() < deadline:
            sleep(0.02)  # in a thread: the lab's reactor goes on
        end, times = monotonic() + SECONDS / 4, []
        while monotonic() < end:
            times.append(float(device.ask("ping", 5.0, name=peer.fqdn)) * 1000)
            sleep(0.005)
        return times

    def _carried(self, device: Device, peer: Device) -> int:
        tunnel = device.tunnel(peer)
        return 0 if tunnel is None else int(tunnel["rx_bytes"]) + int(tunnel["tx_bytes"])

    async def test_sending(self) -> None:
        """The busy device sends."""
        await self.beside(reverse=False)

    async def test_receiving(self) -> None:
        """The busy device receives."""
        await self.beside(reverse=True)
