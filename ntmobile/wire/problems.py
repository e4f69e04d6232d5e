"""Problem documents (RFC 9457): what went wrong over HTTP, in one line that says what to do.

One table joins the errors of this package to statuses, so that a client meets the same error that
the server had: :func:`problem_of` there, :func:`error_of` here.
"""

from __future__ import annotations

from typing import Final

import msgspec
from attrs import frozen

from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationError,
    InvalidName,
    ItemExpired,
    MalformedMessage,
    NoSuchItem,
    NTMobileError,
    QuotaExceeded,
    StorageFailed,
    StorageFull,
    UnknownName,
    Unreachable,
)

#: The media type of a problem document.
PROBLEM_TYPE: Final = "application/problem+json"
#: What stands before a kind's name in ``type``.
URN: Final = "urn:ntmobile:"
#: Largest problem document that a client reads, and longest line in it.
PROBLEM_LIMIT: Final = 4096
DETAIL_LIMIT: Final = 400
#: What is said of a storage that fails: its own words name files, and are for the log.
STORAGE_FAILS: Final = "the server cannot read or write what it keeps; try again later"


@frozen
class Kind:
    """A kind of problem.

    :ivar name: in the URN. :ivar status: of HTTP. :ivar title: in words.
    :ivar error: what a client raises.
    """

    name: str
    status: int
    title: str
    error: type[NTMobileError]


MALFORMED: Final = Kind("malformed", 400, "The request is not understood", MalformedMessage)
UNAUTHENTICATED: Final = Kind(
    "unauthenticated", 401, "The signature of the request is not accepted", AuthenticationError
)
DENIED: Final = Kind("denied", 403, "This is not for you to do", AccessDenied)
UNKNOWN: Final = Kind("unknown", 404, "There is no such thing here", NoSuchItem)
METHOD: Final = Kind("method", 405, "That cannot be done with this", MalformedMessage)
SLOW: Final = Kind("slow", 408, "The request took too long", Unreachable)
EXPIRED: Final = Kind("expired", 410, "Its time is over", ItemExpired)
CONFLICT: Final = Kind("conflict", 409, "There is something else already", AlreadyExists)
LENGTH: Final = Kind("length", 411, "The length of the body must be said", MalformedMessage)
LARGE: Final = Kind("large", 413, "That is more than is taken", QuotaExceeded)
MEDIA: Final = Kind("media", 415, "The body is of another type", MalformedMessage)
RANGE: Final = Kind("range", 416, "There is no such range", MalformedMessage)
CONTENT: Final = Kind("content", 422, "The content is not what was said", MalformedMessage)
BUSY: Final = Kind("busy", 429, "Too many requests", QuotaExceeded)
FAILED: Final = Kind("failed", 500, "The server failed", Unreachable)
UNAVAILABLE: Final = Kind("unavailable", 503, "The server cannot do that now", Unreachable)
FULL: Final = Kind("full", 507, "There is no room for it", StorageFull)

KINDS: Final = {
    kind.name: kind
    for kind in (
        MALFORMED, UNAUTHENTICATED, DENIED, UNKNOWN, METHOD, SLOW, CONFLICT, EXPIRED, LENGTH, LARGE,
        MEDIA, RANGE, CONTENT, BUSY, FAILED, UNAVAILABLE, FULL,
    )
}  # fmt: skip
#: The first that an error is an instance of decides.
_BY_ERROR: Final = (
    (MalformedMessage, MALFORMED),
    (InvalidName, MALFORMED),
    (AuthenticationError, UNAUTHENTICATED),
    (AccessDenied, DENIED),
    (UnknownName, UNKNOWN),
    (NoSuchItem, UNKNOWN),
    (ItemExpired, EXPIRED),
    (AlreadyExists, CONFLICT),
    (QuotaExceeded, FULL),
    (StorageFull, FULL),
    (Unreachable, UNAVAILABLE),
)


class ProblemDocument(msgspec.Struct, frozen=True):
    """A problem document: kind as a URN, its title, status of HTTP, and the line."""

    type: str
    title: str
    status: int
    detail: str


class Problem(NTMobileError):
    """A request over HTTP is answered with a problem document; the text is its line.

    :ivar kind: of the problem. :ivar headers: to be added to the answer.
    """

    def __init__(self, kind: Kind, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.kind = kind
        self.headers = headers

    def document(self) -> bytes:
        """The document, as JSON."""
        detail = str(self)[:DETAIL_LIMIT]
        return msgspec.json.encode(
            ProblemDocument(URN + self.kind.name, self.kind.title, self.kind.status, detail)
        )


def problem_of(error: BaseException) -> Problem:
    """What a server answers for an error; one that is not ours says nothing of itself."""
    if isinstance(error, Problem):
        return error
    for kind, problem in _BY_ERROR:
        if isinstance(error, kind):
            return Problem(problem, str(error))
    if isinstance(error, StorageFailed):
        return Problem(UNAVAILABLE, STORAGE_FAILS, (("Retry-After", "30"),))
    return Problem(FAILED, "the server failed; its log says why, and it may be tried again")


def error_of(status: int, data: bytes) -> NTMobileError:
    """What a client raises for an answer that is not a success.

    Anything may have answered: what is no problem document is told by its status alone.
    """
    try:
        document = msgspec.json.decode(data[:PROBLEM_LIMIT], type=ProblemDocument)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Unreachable(f"the server answered with status {status}, and no reason")
    kind = KINDS.get(document.type.removeprefix(URN), FAILED)
    line = " ".join(document.detail[:DETAIL_LIMIT].split())
    printable = "".join(each if each.isprintable() else "?" for each in line)
    return kind.error(printable or kind.title)
