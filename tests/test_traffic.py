"""What a device does with datagrams that come together."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.traffic import Traffic
from ntmobile.machines.device.shown import ShownAddresses
from ntmobile.machines.effects import Address
from ntmobile.wire.headers import Kind
from tests.tunnels import certified

REMOTE: Address = ("192.0.2.1", 4331)


class Heard:
    """In place of all tunnels: keeps what comes, taking runs whole or one datagram at a time."""

    def __init__(self, *, whole: bool) -> None:
        self.datagrams: list[bytes] = []
        self._whole = whole

    def datagram_received(self, datagram: bytes, remote: Address, now: float) -> None:
        """One."""
        self.datagrams.append(datagram)

    def run_received(self, data: memoryview, segment: int, remote: Address, now: float) -> int:
        """Several, of which those of one tunnel at the beginning are taken."""
        end = len(data) if self._whole else min(segment, len(data))
        for at in range(0, end, segment):
            if data[at] & 0xF0 == 0x20:
                return at
            self.datagrams.append(bytes(data[at : min(at + segment, end)]))
        return end

    def effects(self) -> list[object]:
        """Nothing follows."""
        return []

    def next_timer(self) -> None:
        """Nothing is due."""


class RunTests(SynchronousTestCase):
    def traffic(self, heard: Heard) -> Traffic:
        """A device's traffic, whose signalling is kept."""
        self.signalled: list[bytes] = []
        certificate, _ = certified("a.b.dc1.ntm.example", 1)
        anything: Any = heard
        nothing: Any = None
        shown = ShownAddresses(certificate.ipv6, certificate.ipv4)
        return Traffic(
            Clock(),
            anything,
            shown,
            lambda datagram, remote: self.signalled.append(datagram),
            nothing,
            nothing,
            nothing,
        )

    def test_empty(self) -> None:
        """A datagram of no bytes is nothing, and no fault in the log."""
        heard = Heard(whole=True)
        traffic = self.traffic(heard)
        traffic.run_received(memoryview(b""), 0, REMOTE)
        traffic.batch_ended()
        self.assertEqual((heard.datagrams, self.signalled), ([], []))

    @given(
        st.lists(st.sampled_from((Kind.TUNNEL_DATA, Kind.SIGNAL_SEALED)), min_size=1, max_size=9),
        st.integers(1, 40),
        st.booleans(),
        st.integers(0, 39),
    )
    def test_mixed(self, kinds: list[Kind], segment: int, whole: bool, short: int) -> None:
        """R23: in a run of signalling and tunnels' datagrams each goes where it belongs."""
        parts = [bytes([kind]) + bytes([n]) * (segment - 1) for n, kind in enumerate(kinds)]
        parts[-1] = parts[-1][: max(1, segment - short)]
        heard = Heard(whole=whole)
        traffic = self.traffic(heard)
        traffic.run_received(memoryview(b"".join(parts)), segment, REMOTE)
        traffic.batch_ended()
        self.assertEqual(heard.datagrams, [one for one in parts if one[0] == Kind.TUNNEL_DATA])
        self.assertEqual(self.signalled, [one for one in parts if one[0] != Kind.TUNNEL_DATA])
