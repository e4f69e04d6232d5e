"""Keys with which requests over HTTP are signed (R28)."""

from __future__ import annotations

from typing import Final

from ntmobile.wire.sealing import expand

#: What a session key is expanded for.
_COORDINATOR: Final = "ntm1 http"


def coordinator_key(session_key: bytes) -> bytes:
    """The key with which a client signs what it asks of its DC, from that of its session.

    ``keyid`` is the session's index in hex, ``alg`` is ``hmac-sha256``.
    """
    return expand(session_key, _COORDINATOR)
