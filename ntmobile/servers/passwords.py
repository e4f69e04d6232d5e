"""Password hashes: Argon2id in PHC form, the same work for users that do not exist (rule R2).

One hash takes about 80 ms and 64 MiB, so the account server computes them in threads, few at once.
"""

from __future__ import annotations

import base64
import os
import unicodedata
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from ntmobile.errors import AuthenticationError

#: RFC 9106's second choice is three passes over 64 MiB in four lanes, OWASP's least one pass over
#: 46 MiB. Strangers can make the account server compute these, so it is one lane and two passes.
ITERATIONS: Final = 2
MEMORY: Final = 64 * 1024
LANES: Final = 1
#: Bounds of a password, in characters and in bytes of UTF-8.
SHORTEST: Final = 8
LONGEST: Final = 1024

_PARAMETERS: Final = f"$argon2id$v=19$m={MEMORY},t={ITERATIONS},p={LANES}$"


def _normal(password: str) -> bytes:
    """The bytes of a password, however its accents were typed (RFC 8265's normalization)."""
    return unicodedata.normalize("NFC", password).encode("utf-8")


def check_password(password: str) -> str:
    """Return a new password if it is acceptable.

    :raises AuthenticationError: it is empty, too short or too long.
    """
    if not password.strip():
        raise AuthenticationError("the password is empty; nothing was changed")
    if len(password) < SHORTEST:
        raise AuthenticationError(f"the password is shorter than {SHORTEST} characters")
    try:
        size = len(_normal(password))
    except UnicodeEncodeError:
        raise AuthenticationError("the password is not valid text") from None
    if size > LONGEST:
        raise AuthenticationError(f"the password is longer than {LONGEST} bytes")
    return password


def hash_password(password: str) -> str:
    """Hash a password with a fresh salt, in PHC form."""
    salt = os.urandom(16)
    argon = Argon2id(salt=salt, length=32, iterations=ITERATIONS, lanes=LANES, memory_cost=MEMORY)
    return argon.derive_phc_encoded(_normal(password))


def _dummy() -> str:
    """A hash that no password has, made without computing one."""
    salt, tag = (base64.b64encode(os.urandom(size)).rstrip(b"=").decode() for size in (16, 32))
    return f"{_PARAMETERS}{salt}${tag}"


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether a password is that of a hash; None stands for a user that does not exist.

    None takes the time of a wrong password and is always False (rule R2).
    """
    try:
        data = _normal(password)[: LONGEST + 1]
    except UnicodeEncodeError:
        data = b""
    try:
        Argon2id.verify_phc_encoded(data, password_hash or _dummy())
    except InvalidKey:
        return False
    return password_hash is not None and len(data) <= LONGEST
