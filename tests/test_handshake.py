"""The handshake of a direction: who it is with, under what, and once (R15, R18, R19)."""

from __future__ import annotations

import os

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, MalformedMessage, NTMobileError
from ntmobile.machines.tunnel.handshake import Initiation, Parties, Reception
from ntmobile.machines.tunnel.identity import LocalIdentity
from ntmobile.wire.headers import Header, Kind
from tests.tunnels import HIGH, LOW, certified

DIRECTION, PSK = b"direct01", bytes(32)
REMOTE = ("2001:db8::1", 50000)


def parties() -> tuple[Parties, Parties]:
    """The initiator's and the responder's view of the same handshake."""
    (low, low_key), (high, high_key) = certified(LOW, 1), certified(HIGH, 2)
    return (
        LocalIdentity.of(low, low_key).with_peer(high, initiator=True),
        LocalIdentity.of(high, high_key).with_peer(low, initiator=False),
    )


class HandshakeTests(SynchronousTestCase):
    """Message 1 and its answer."""

    def setUp(self) -> None:
        self.own, self.their = parties()
        self.initiation = Initiation(DIRECTION, self.own, PSK, os.urandom)
        self.reception = Reception()

    def receive(self, datagram: bytes, their: Parties | None = None, psk: bytes = PSK) -> object:
        return self.reception.requested(
            datagram, REMOTE, DIRECTION, their or self.their, psk, os.urandom
        )

    def answer(self) -> bytes:
        answer = self.reception.repeated(self.initiation.request)
        assert answer is not None
        return answer

    def test_keys(self) -> None:
        """R19: both ends have the same keys, each other's way round; the initiator hears whence."""
        theirs = self.reception.requested(
            self.initiation.request, REMOTE, DIRECTION, self.their, PSK, os.urandom
        )
        ours, response = self.initiation.answered(self.answer())
        self.assertEqual((ours.sending, ours.receiving), (theirs.receiving, theirs.sending))
        self.assertEqual(ours.handshake_hash, theirs.handshake_hash)
        assert response.observed is not None
        self.assertEqual(REMOTE, response.observed.pair())

    def test_all_that_is_bound(self) -> None:
        """R19: version, identifier, both FQDNs, both certificates and both keys must agree."""
        names, hashes = self.their.names, self.their.hashes
        for other in (
            evolve(self.their, names=(names[1], names[0])),
            evolve(self.their, names=("c.eve.dc1.ntm.example", names[1])),
            evolve(self.their, names=(names[0], "c.eve.dc1.ntm.example")),
            evolve(self.their, hashes=(bytes(32), hashes[1])),
            evolve(self.their, hashes=(hashes[0], bytes(32))),
            evolve(self.their, private_key=b"\x11" * 32),
            evolve(self.their, remote_key=self.own.remote_key),
        ):
            self.assertRaises(AuthenticationError, self.receive, self.initiation.request, other)
        self.assertRaises(
            AuthenticationError,
            self.reception.requested,
            self.initiation.request,
            REMOTE,
            b"direct02",
            self.their,
            PSK,
            os.urandom,
        )
        self.assertNotEqual(
            self.own.prologue("tunnel", DIRECTION), self.own.prologue("rekey", DIRECTION)
        )

    def test_the_temporal_key_protects(self) -> None:
        """R18, paper III: who does not have the direction's temporal key makes no tunnel."""
        self.assertRaises(
            AuthenticationError, self.receive, self.initiation.request, psk=b"\1" * 32
        )

    def test_the_temporal_key_alone_does_not(self) -> None:
        """Design 4: a DC that knows the temporal key, and not a device's key, is nobody."""
        malicious = evolve(self.own, private_key=b"\x11" * 32)
        forged = Initiation(DIRECTION, malicious, PSK, os.urandom)
        self.assertRaises(AuthenticationError, self.receive, forged.request)

    def test_accepted_once(self) -> None:
        """R19: one message 1 a direction; the same again gets the very same answer."""
        self.receive(self.initiation.request)
        answer = self.answer()
        self.assertEqual(answer, self.answer())
        other = Initiation(DIRECTION, self.own, PSK, os.urandom)
        self.assertIsNone(self.reception.repeated(other.request))
        self.assertRaises(AuthenticationError, self.receive, other.request)

    def test_a_forged_request_spends_nothing(self) -> None:
        """R19: after any number of forgeries the true message 1 is accepted."""
        forged = self.initiation.request[:-1] + b"\0"
        for _ in range(3):
            self.assertRaises(AuthenticationError, self.receive, forged)
        self.assertFalse(self.reception.spent)
        self.receive(self.initiation.request)

    def test_a_forged_answer_spends_nothing(self) -> None:
        """An answer that is not authentic does not keep the true one out."""
        self.receive(self.initiation.request)
        answer = self.answer()
        self.assertRaises(AuthenticationError, self.initiation.answered, answer[:-1] + b"\0")
        self.assertRaises(AuthenticationError, self.initiation.answered, answer[:40])
        self.initiation.answered(answer)

    def test_no_amplification(self) -> None:
        """R8: the answer is never larger than the request, and a smaller request gets none."""
        self.receive(self.initiation.request)
        self.assertLessEqual(len(self.answer()), len(self.initiation.request))
        self.assertRaises(MalformedMessage, Reception().requested, *self._short())

    def _short(self) -> tuple[object, ...]:
        return (self.initiation.request[:111], REMOTE, DIRECTION, self.their, PSK, os.urandom)

    def test_headers(self) -> None:
        """R23: both messages have the one header, with the direction as index."""
        self.receive(self.initiation.request)
        self.assertEqual(
            Header(Kind.TUNNEL_REQUEST, 0, DIRECTION, 0), Header.parse(self.initiation.request)
        )
        self.assertEqual(Header(Kind.TUNNEL_RESPONSE, 0, DIRECTION, 0), Header.parse(self.answer()))

    @given(st.binary(max_size=300))
    @settings(max_examples=50, deadline=None)
    def test_rubbish(self, data: bytes) -> None:
        """R11: whatever comes, one family of errors is raised."""
        own, their = parties()
        initiation = Initiation(DIRECTION, own, PSK, os.urandom)
        for call in (
            lambda: initiation.answered(data),
            lambda: Reception().requested(data, None, DIRECTION, their, PSK, os.urandom),
        ):
            self.assertRaises(NTMobileError, call)
