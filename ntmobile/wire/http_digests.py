"""Content-Digest (RFC 9530): what the body of a request is, said before it comes."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from ntmobile.errors import MalformedMessage
from ntmobile.wire.structured_fields import Item, parse_dictionary, serialize_dictionary

#: The field's name, as it stands in a signature.
CONTENT_DIGEST: Final = "content-digest"
#: The one algorithm that is asked for; others may stand beside it.
_ALGORITHM: Final = "sha-256"


def content_digest(body: bytes | bytearray | memoryview) -> str:
    """The field for a body."""
    return digest_field(sha256(body).digest())


def digest_field(digest: bytes) -> str:
    """The field for a body whose SHA-256 is known."""
    return serialize_dictionary({_ALGORITHM: Item(digest)})


def parse_content_digest(text: str) -> bytes:
    """The SHA-256 that a field promises.

    :raises MalformedMessage: it is no such field, or has no SHA-256.
    """
    member = parse_dictionary(text).get(_ALGORITHM)
    if not isinstance(member, Item) or not isinstance(member.value, bytes):
        raise MalformedMessage(f"a Content-Digest without {_ALGORITHM}")
    if len(member.value) != 32:
        raise MalformedMessage(f"a Content-Digest whose {_ALGORITHM} is not of 32 bytes")
    return member.value
