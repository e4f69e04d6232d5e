"""What each request about stored data carries (paper, V-B), and that nobody asks without a name."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.protocols.http_openapi import OPEN
from ntmobile.protocols.http_routes import Route
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.exchange import (
    EncryptedDataExchangeRequest,
    EncryptionKeyExchangeRequest,
    PreKeyRequest,
    RequestInfo,
    TemporalKeyUploadRequest,
    TokenUpdate,
)
from tests.caching import ALICE, BOB, CAROL, World, an_item
from tests.stored_data import APPLICATION, Device

#: The paper's list, in its order; the token is the name of the signature's key.
LIST = ("version", "fqdn", "destinations", "application", "service", "item", "message")


class RequestInfoTests(SynchronousTestCase):
    """The documents, and the routes that take them."""

    def setUp(self) -> None:
        self.world = World()
        self.routes: list[Route] = [
            each for each in self.world.api.table.routes if each.access != OPEN
        ]

    def test_list(self) -> None:
        """It is the paper's list: version, own and destination FQDNs, three names, message."""
        self.assertEqual(RequestInfo.__struct_fields__, LIST)

    def test_documents(self) -> None:
        """Every request with a document has it: of clients, and of a CS that passes it on."""
        kinds: set[type[Message]] = {each.body for each in self.routes if each.body is not None}
        kinds.discard(TokenUpdate)
        self.assertGreaterEqual(len(kinds), 3)
        passed_on: set[type[Message]] = {EncryptionKeyExchangeRequest, EncryptedDataExchangeRequest}
        for kind in kinds | passed_on | {TemporalKeyUploadRequest}:
            self.assertIn("info", kind.__struct_fields__, kind)
        self.assertEqual(
            PreKeyRequest.__struct_fields__, ("sender", "fqdns")
        )  # none of the paper's

    def test_token(self) -> None:
        """R28: whatever is asked of a CS is asked under an authentication token, or refused."""
        self.world.client(ALICE)  # so that the AS has been heard
        self.assertGreater(len(self.routes), 9)
        for route in self.routes:
            path = re.sub(r"\{part\}", "0", route.path)
            path = re.sub(r"\{identifier\}", "00" * 32, path)
            path = re.sub(r"\{object\}", "00" * 16, path)
            answer = self.world.ask(None, route.method, path, b"{}" if route.limit else b"")
            expected = 403 if route.body is TokenUpdate else 401
            self.assertEqual(answer.status, expected, route.path)
            self.assertEqual(answer.headers["content-type"], "application/problem+json")

    def test_passed_on(self) -> None:
        """The coordinator of a destination hears all of it, of its own destinations alone."""
        alice = Device.create(ALICE)
        client = self.world.client(ALICE)
        item = an_item(alice, [BOB, CAROL])
        self.world.upload(client, item)
        said = self.world.announcement(client, item).info
        for (domain, asked), fqdn in zip(self.world.asked, (BOB, CAROL), strict=True):
            self.assertTrue(fqdn.endswith(domain))
            heard = {name: getattr(asked.info, name) for name in LIST}
            sent = {name: getattr(said, name) for name in LIST} | {"destinations": (fqdn,)}
            self.assertEqual(heard, sent)
            self.assertEqual(asked.info.application, APPLICATION)
