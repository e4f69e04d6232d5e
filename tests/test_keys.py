"""Epochs of a session's keys: what seals, what opens, and when (R19, R21)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel.keys import Epoch, KeyRing
from ntmobile.machines.tunnel.noise import Secrets
from ntmobile.wire.headers import HEADER_SIZE, Flag, Header, Kind
from ntmobile.wire.replay import WINDOW

INDEX = b"indexidx"


def secrets(number: int = 0, *, initiator: bool = True) -> Secrets:
    """Both ends' secrets of one handshake are each other's mirror."""
    up, down = bytes([number, 1]) * 16, bytes([number, 2]) * 16
    if not initiator:
        up, down = down, up
    return Secrets(up, down, bytes([number]) * 32, bytes([number, 3]) * 16)


def epochs(number: int = 0) -> tuple[Epoch, Epoch]:
    """The same epoch at both ends."""
    return Epoch(number, secrets(number), 0.0), Epoch(number, secrets(number, initiator=False), 0.0)


def opened(epoch: Epoch, datagram: bytes) -> bytes | None:
    return epoch.open(datagram, Header.parse(datagram).counter)


class EpochTests(SynchronousTestCase):
    """One set of keys."""

    def test_what_is_sealed_is_opened_by_the_other_end_alone(self) -> None:
        """R21: a datagram opens once at the other end, and never at the one that sealed it."""
        one, two = epochs()
        datagram = one.seal(0, INDEX, b"packet")
        self.assertIsNone(opened(one, datagram), "a reflected datagram")
        self.assertEqual(b"packet", opened(two, datagram))
        self.assertIsNone(opened(two, datagram), "a replayed datagram")

    def test_header(self) -> None:
        """R19: the header has kind, epoch, index and counter; the counter never repeats."""
        epoch = Epoch(6, secrets(), 0.0)
        headers = [Header.parse(epoch.seal(int(Flag.CONTROL), INDEX, b"")) for _ in range(3)]
        self.assertEqual([0, 1, 2], [header.counter for header in headers])
        self.assertEqual({Kind.TUNNEL_DATA}, {header.kind for header in headers})
        self.assertEqual(
            {int(Flag.CONTROL) | 2}, {header.flags for header in headers}, "6 modulo 4"
        )

    def test_window(self) -> None:
        """R21: of the last 8192 counters each is taken once, in any order; older ones never."""
        self.assertGreaterEqual(WINDOW, 8192)
        one, two = epochs()
        datagrams = [one.seal(0, INDEX, b"") for _ in range(WINDOW + 2)]
        self.assertIsNotNone(opened(two, datagrams[-1]))
        self.assertIsNone(opened(two, datagrams[0]))
        self.assertIsNotNone(opened(two, datagrams[2]))
        self.assertIsNone(opened(two, datagrams[2]))

    @given(st.integers(0, 200), st.integers(1, 255))
    @settings(max_examples=60, deadline=None)
    def test_a_changed_byte(self, place: int, change: int) -> None:
        """R21: whichever byte is changed, header included, nothing opens, nothing is marked."""
        one, two = epochs()
        datagram = bytearray(one.seal(0, INDEX, bytes(40)))
        intact = bytes(datagram)
        datagram[place % len(datagram)] ^= change
        self.assertIsNone(two.open(bytes(datagram), 0))
        self.assertEqual(bytes(40), two.open(intact, 0))

    def test_the_next_secret_is_secret(self) -> None:
        """R20: the psk of the next handshake depends on the chaining key, not on what is public."""
        given = secrets()
        other = Secrets(given.sending, given.receiving, given.handshake_hash, bytes(32))
        self.assertNotEqual(Epoch(0, given, 0.0).export, Epoch(0, other, 0.0).export)


class KeyRingTests(SynchronousTestCase):
    """Which epochs are open."""

    def test_responder_sends_nothing_before_it_received(self) -> None:
        """R19: under the first keys a responder can open, but seals nothing before it has."""
        _, two = epochs()
        ring = KeyRing(two, initiator=False)
        self.assertIsNone(ring.current)
        self.assertIs(two, ring.opening(0))
        self.assertTrue(ring.opened(two, 1.0))
        self.assertIs(two, ring.current)

    def test_responder_drops_no_old_key_before(self) -> None:
        """R19: a proposed epoch changes nothing about sealing until something came under it."""
        first, second = epochs(0)[0], epochs(1)[0]
        ring = KeyRing(first, initiator=True)
        ring.propose(second)
        self.assertIs(first, ring.current)
        self.assertIs(second, ring.opening(1))
        ring.expire(1000.0)
        self.assertIs(first, ring.current)
        self.assertIs(first, ring.opening(0))
        ring.opened(second, 2000.0)
        self.assertIs(second, ring.current)

    def test_two_epochs_are_open_for_ten_seconds(self) -> None:
        """R19: the replaced epoch opens for 10 s more."""
        first, second = epochs(0)[0], epochs(1)[0]
        second.proven = True
        ring = KeyRing(first, initiator=True)
        ring.adopt(second, 100.0)
        ring.expire(109.9)
        self.assertIs(first, ring.opening(0))
        ring.expire(110.0)
        self.assertIsNone(ring.opening(0))
        self.assertIs(second, ring.opening(1))

    def test_the_old_epoch_stays_until_the_new_one_is_proven(self) -> None:
        """R19: an initiator whose new key nobody has used yet keeps the old one open."""
        first, second = epochs(0)[0], epochs(1)[0]
        ring = KeyRing(first, initiator=True)
        ring.adopt(second, 100.0)
        ring.expire(200.0)
        self.assertIs(first, ring.opening(0))

    def test_unknown_epoch(self) -> None:
        """A header that names no open epoch opens nothing."""
        ring = KeyRing(epochs()[0], initiator=True)
        self.assertEqual([None] * 3, [ring.opening(bits) for bits in (1, 2, 3)])

    def test_sizes(self) -> None:
        """A sealed datagram is 36 bytes longer than what is in it."""
        self.assertEqual(HEADER_SIZE + 16 + 5, len(epochs()[0].seal(0, INDEX, b"12345")))
