from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.codec import Message, declarations
from ntmobile.wire.documents import DOCUMENT_LIMIT, read_document, write_document
from ntmobile.wire.messages.exchange import (
    CacheListDownloadResponse,
    Delivery,
    EncryptionKeyUploadRequest,
    EncryptionKeyUploadResponse,
    PreKeyRequest,
)
from tests.messages import largest_message, of_message

#: What travels over HTTP.
DOCUMENTS = [each.type for each in declarations() if each.transport == "https"]

ours = settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)


def any_document() -> st.SearchStrategy[Message]:
    return st.sampled_from(DOCUMENTS).flatmap(of_message)


class DocumentTests(SynchronousTestCase):
    @given(any_document())
    @ours
    def test_round_trip(self, message: Message) -> None:
        """A document comes back as it was written, and is a JSON object."""
        data = write_document(message)
        self.assertIsInstance(json.loads(data), dict)
        self.assertEqual(read_document(type(message), data), message)

    def test_largest(self) -> None:
        """Whatever the bounds of an upload allow fits a request, and any list an answer."""
        upload = largest_message(EncryptionKeyUploadRequest)
        self.assertLessEqual(len(write_document(upload)), DOCUMENT_LIMIT)
        write_document(largest_message(CacheListDownloadResponse))

    @given(any_document(), st.data())
    @ours
    def test_mutations(self, message: Message, data: st.DataObject) -> None:
        """R11: a changed or cut document is within bounds or malformed, nothing else."""
        wire = bytearray(write_document(message))
        where = data.draw(st.integers(0, len(wire) - 1))
        if data.draw(st.booleans()):
            wire[where] ^= data.draw(st.integers(1, 255))
        else:
            del wire[where:]
        try:
            again = read_document(type(message), wire)
        except MalformedMessage:
            return
        write_document(again)

    def test_later_fields(self) -> None:
        """Fields that a later version added are ignored."""
        data = b'{"results": [{"destination": "a", "outcome": 9, "later": 1}], "more": null}'
        found = read_document(EncryptionKeyUploadResponse, data)
        self.assertEqual(found, EncryptionKeyUploadResponse((Delivery("a", 9),)))

    def test_refused(self) -> None:
        """R11: wrong types, bounds, names and sizes are malformed; the text says which field."""
        wrong: list[Any] = [
            {},
            [],
            {"sender": "a", "fqdns": []},
            {"sender": "A", "fqdns": ["b"]},
            {"sender": 1, "fqdns": ["b"]},
            {"sender": "a", "fqdns": ["b"] * 33},
        ]
        for one in wrong:
            with self.assertRaises(MalformedMessage):
                read_document(PreKeyRequest, json.dumps(one).encode())
        with self.assertRaisesRegex(MalformedMessage, r"not a PreKeyRequest: .*fqdns"):
            read_document(PreKeyRequest, b'{"sender": "a", "fqdns": 3}')
        with self.assertRaisesRegex(MalformedMessage, "more than 10"):
            read_document(PreKeyRequest, b'{"sender": "a", "fqdns": ["b"]}', 10)
        with self.assertRaises(MalformedMessage):
            read_document(PreKeyRequest, b"[" * 100_000)

    def test_writing_validates_too(self) -> None:
        """R11: what is out of bounds is found by its writer."""
        with self.assertRaises(MalformedMessage):
            write_document(PreKeyRequest("a", ()))
        with self.assertRaises(MalformedMessage):
            write_document(PreKeyRequest("\ud800", ("b",)))
