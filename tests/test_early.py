from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.tunnel.constants import REQUEST_SIZE
from ntmobile.machines.tunnel.early import CAPACITY, PATIENCE, EarlyRequests
from ntmobile.wire.headers import Header, Kind

HERE, ELSEWHERE = ("192.0.2.1", 5000), ("198.51.100.66", 6)


def request(index: bytes, kind: Kind = Kind.TUNNEL_REQUEST, size: int = REQUEST_SIZE) -> bytes:
    """A datagram with that index; the rest of it is nobody's business yet."""
    head = Header(kind, 0, index, 0).pack()
    return head + bytes(size - len(head))


class EarlyRequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing is held."""
        self.early = EarlyRequests()

    def test_held(self) -> None:
        """A request is there for the direction that it belongs to, once."""
        self.early.hold(request(b"direct01"), HERE, 1.0)
        self.assertIsNone(self.early.take(b"direct02", 1.1))
        self.assertEqual(self.early.take(b"direct01", 1.1), (request(b"direct01"), HERE))
        self.assertIsNone(self.early.take(b"direct01", 1.1))

    def test_first(self) -> None:
        """Of several with one index the first is held, until it is too old."""
        self.early.hold(request(b"direct01"), HERE, 1.0)
        self.early.hold(request(b"direct01", size=200), ELSEWHERE, 1.1)
        self.early.hold(request(b"direct01", size=300), ELSEWHERE, 1.0 + PATIENCE)
        found = self.early.take(b"direct01", 1.1 + PATIENCE)
        assert found is not None
        self.assertEqual(len(found[0]), 300)

    def test_old(self) -> None:
        """A request is not held for longer than its sender waits with the next."""
        self.early.hold(request(b"direct01"), HERE, 1.0)
        self.assertIsNone(self.early.take(b"direct01", 1.0 + PATIENCE))

    def test_nothing_else(self) -> None:
        """R8: what can be no Tunnel Request is not held."""
        self.early.hold(request(b"direct01", Kind.TUNNEL_DATA), HERE, 1.0)
        self.early.hold(request(b"direct01", size=REQUEST_SIZE - 1), HERE, 1.0)
        self.early.hold(request(b"direct01", size=1400), HERE, 1.0)
        self.early.hold(b"", HERE, 1.0)
        self.assertIsNone(self.early.take(b"direct01", 1.0))

    @given(st.lists(st.binary(min_size=8, max_size=8), min_size=CAPACITY + 1, unique=True))
    def test_bounded(self, indices: list[bytes]) -> None:
        """R8: a flood of them costs bounded memory; the newest are kept."""
        early = EarlyRequests()
        for index in indices:
            early.hold(request(index), ELSEWHERE, 1.0)
        held = [index for index in indices if early.take(index, 1.0) is not None]
        self.assertEqual(held, indices[-CAPACITY:])
