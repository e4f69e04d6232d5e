"""Who may ask a cache server (R28, R34)."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

from attrs import evolve
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.protocols.http_connection import HttpConnection
from ntmobile.wire.http_signatures import FRESH, Ed25519Signer, HmacKey
from ntmobile.wire.messages.exchange import TokenAcknowledgement, TokenUpdate
from tests.caching import ALICE, World, altered
from tests.stored_data import Device

KEY = "/v1/keys/" + "00" * 32


class AccessTests(SynchronousTestCase):
    """A request for a key that is not there: 404 tells that its sender was let in."""

    def setUp(self) -> None:
        self.world = World()
        self.alice = self.world.client(ALICE)

    def status(self, **changes: Any) -> int:
        """What a request of alice's is answered, if she were another in this."""
        return self.world.ask(evolve(self.alice, **changes), "GET", KEY).status

    def test_token(self) -> None:
        """R28: a device is known by token and key, which both must be right."""
        self.assertEqual(self.status(), 404)
        self.assertEqual(self.status(key=HmacKey(bytes(32))), 401)
        for keyid in ("00" * 16, "zz", "00", "0" * 127):
            self.assertEqual(self.status(keyid=keyid), 401, keyid)
            self.assertEqual(self.status(keyid=keyid, key=HmacKey(bytes(32))), 401, keyid)

    def test_unsigned(self) -> None:
        """A request without signature is told what is missing."""
        answer = self.world.ask(None, "GET", KEY)
        self.assertEqual(answer.status, 401)
        self.assertIn("not signed", answer.detail)

    def test_once(self) -> None:
        """R28: a request that was heard by somebody cannot be made again."""
        request, body = self.world.signed(self.alice, "GET", KEY)
        self.assertEqual(self.world.send(request, body).status, 404)
        answer = self.world.send(request, body)
        self.assertEqual(answer.status, 401)
        self.assertIn("made before", answer.detail)

    def test_old(self) -> None:
        """R28: nor can it be kept for later."""
        request, body = self.world.signed(self.alice, "GET", KEY)
        self.world.clock.advance(FRESH + 1)
        self.assertIn("301 s old", self.world.send(request, body).detail)

    def test_another_body(self) -> None:
        """R28: the body is what was signed."""
        request, _ = self.world.signed(self.alice, "POST", "/v1/keys", b"{}")
        request = altered(request, content_type="application/json")
        self.assertEqual(self.world.send(request, b"[]").status, 422)
        unsigned = evolve(
            request, fields={k: v for k, v in request.fields.items() if k != "content-digest"}
        )
        self.assertEqual(self.world.send(unsigned, b"[]").status, 400)

    def test_unsigned_body(self) -> None:
        """R28: a body that is not signed for is refused."""
        request, _ = self.world.signed(self.alice, "POST", "/v1/keys")
        answer = self.world.send(altered(request, content_length="2"), b"{}")
        self.assertEqual(answer.status, 401)
        self.assertIn("content-digest", answer.detail)

    def test_revoked(self) -> None:
        """R34: a revoked device is refused from the AS's word on."""
        sequence = self.world.cache.tokens.sequence
        self.world.cache.tokens.apply(TokenUpdate(sequence + 1, sequence, (), (ALICE,)), 0)
        self.assertEqual(self.status(), 401)

    def test_lease(self) -> None:
        """R34: ten minutes without a word of the AS, and nobody is served, until it is back."""
        self.world.clock.advance(599)
        self.assertEqual(self.status(), 404)
        self.world.clock.advance(1)
        answer = self.world.ask(self.alice, "GET", KEY)
        self.assertEqual(answer.status, 503)
        self.assertIn("retry-after", answer.headers)
        stranger, _ = self.world.stranger()
        self.assertEqual(self.world.ask(stranger, "GET", KEY).status, 503)
        sequence = self.world.cache.tokens.sequence
        self.world.cache.tokens.apply(TokenUpdate(sequence, sequence), 600)
        self.assertEqual(self.status(), 404)

    def test_restart(self) -> None:
        """A server that has just started serves nobody until the AS has told the tokens."""
        self.world.restart()
        self.assertEqual(self.status(), 503)
        self.world.cache.tokens.apply(TokenUpdate(1, 0), 0)
        self.assertEqual(self.status(), 401)

    def test_expired(self) -> None:
        """A token holds until its end."""
        for _ in range(150):
            self.world.clock.advance(590)
            sequence = self.world.cache.tokens.sequence
            self.world.cache.tokens.apply(
                TokenUpdate(sequence, sequence), self.world.clock.seconds()
            )
        self.assertEqual(self.status(), 401)

    def test_rate(self) -> None:
        """A device that asks too much is told to wait; others are served."""
        self.world.cache.access._limiter = type(self.world.cache.access._limiter)(1, 2)
        self.assertEqual([self.status() for _ in range(3)], [404, 404, 429])
        self.assertEqual(self.world.ask(self.world.client(ALICE[1:]), "GET", KEY).status, 404)

    def test_stranger(self) -> None:
        """R28: a device of another realm is known by its certificate, and what it signs."""
        stranger, _ = self.world.stranger()
        self.assertEqual(self.world.ask(stranger, "GET", KEY).status, 404)
        other, _ = self.world.stranger("desk.erik.dc9.else.example")
        wrong = (
            evolve(stranger, key=other.key),
            evolve(stranger, keyid=other.keyid),
            evolve(stranger, key=HmacKey(bytes(32))),
            evolve(stranger, fields=other.fields),
            evolve(stranger, fields={**stranger.fields, "ntm-server": "cs2.dc1.ntm.example"}),
            evolve(stranger, fields={"ntm-certificate": stranger.fields["ntm-certificate"]}),
            evolve(stranger, fields={"ntm-server": stranger.fields["ntm-server"]}),
        )
        for client in wrong:
            self.assertIn(self.world.ask(client, "GET", KEY).status, (400, 401), client)

    def test_stranger_to_another_server(self) -> None:
        """R28: what a stranger signs for one server is of no use at another."""
        stranger, _ = self.world.stranger()
        request, _ = self.world.signed(stranger, "GET", KEY)
        answer = self.world.send(altered(request, ntm_server="cs2.dc1.ntm.example"))
        self.assertEqual(answer.status, 401)

    def test_stranger_of_no_realm(self) -> None:
        """R28: a device of a realm that is not trusted is refused."""
        self.world.foreign = type(self.world.foreign)("nowhere.example", self.world.unix_time())
        stranger, _ = self.world.stranger("a.b.dc.nowhere.example")
        self.assertEqual(self.world.ask(stranger, "GET", KEY).status, 401)

    def test_home_without_token(self) -> None:
        """R28, R34: a device of the realm cannot come by its certificate, but by its token."""
        device = Device.create(ALICE)
        stranger, _ = self.world.stranger()
        der = device.signer.certificate
        client = evolve(
            stranger,
            fqdn=ALICE,
            key=Ed25519Signer(device.signer.identity),
            keyid=sha256(der).hexdigest(),
            fields={**stranger.fields, "ntm-certificate": base64.b64encode(der).decode()},
        )
        answer = self.world.ask(client, "GET", KEY)
        self.assertEqual(answer.status, 401)
        self.assertIn("log in again", answer.detail)

    def test_stranger_uploads(self) -> None:
        """R28: strangers can only receive."""
        stranger, _ = self.world.stranger()
        for method, path in (("POST", "/v1/keys"), ("POST", "/v1/objects")):
            self.assertEqual(self.world.ask(stranger, method, path).status, 401)
        path = "/v1/objects/" + "00" * 16
        self.assertEqual(self.world.ask(stranger, "DELETE", path).status, 401)
        self.assertEqual(self.world.ask(stranger, "GET", f"{path}/status").status, 401)

    def tell(self, **changes: Any) -> int:
        """An update of the AS; its status."""
        self.patch(HttpConnection, "peer", lambda _: ("as", "ntm.example"))
        sequence = self.world.cache.tokens.sequence
        update = replace(TokenUpdate(sequence, sequence), **changes)
        return self.world.ask(None, "POST", "/v1/tokens", update).status

    def test_clock(self) -> None:
        """R12: a cache server's clock that is wrong counts no more once its AS told the time."""
        right, wrong = self.world.unix_time, self.world.cache._wall
        self.patch(self.world.cache, "_wall", lambda: wrong() + 4000)
        self.assertEqual(self.status(), 401)
        self.assertEqual(self.tell(time=int(right() * 1000)), 200)
        self.assertEqual(self.status(), 404)
        self.assertAlmostEqual(self.world.cache.unix_time(), right(), 2)
        self.world.clock.advance(100)
        self.assertEqual(self.tell(), 200)  # an AS that does not say
        self.assertEqual(self.status(), 404)

    def test_tokens(self) -> None:
        """Only the realm's AS tells of tokens, by mutual TLS."""
        update = TokenUpdate(9, 0)
        for client in (None, self.alice):
            answer = self.world.ask(client, "POST", "/v1/tokens", update)
            self.assertEqual(answer.status, 403)
        peers = iter([("as", "else.example"), ("dc", "ntm.example"), ("as", "ntm.example")])
        self.patch(HttpConnection, "peer", lambda _: next(peers))
        for status in (403, 403, 200):
            answer = self.world.ask(None, "POST", "/v1/tokens", update)
            self.assertEqual(answer.status, status)
        self.assertEqual(answer.document(TokenAcknowledgement).sequence, 9)
