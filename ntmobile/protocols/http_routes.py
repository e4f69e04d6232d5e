"""Routes of an HTTP API: what is asked where, by whom, with which body, and what is answered.

The table of routes is all there is: requests are matched with it, and the OpenAPI document is made
of it (:mod:`ntmobile.protocols.http_openapi`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from attrs import Factory, define, field, frozen

from ntmobile.errors import MalformedMessage
from ntmobile.wire import problems
from ntmobile.wire.codec import Message
from ntmobile.wire.documents import DOCUMENT_LIMIT
from ntmobile.wire.http_signatures import Request as SignableRequest
from ntmobile.wire.problems import Kind, Problem

JSON_TYPE: Final = "application/json"
OCTETS_TYPE: Final = "application/octet-stream"
#: Most parameters of a query.
_QUERY_LIMIT: Final = 8


@frozen
class Parameter:
    """A part of a path or query that differs, with the one form that it may have.

    :ivar pattern: of the whole. :ivar read: makes its value of the text.
    :ivar schema: of JSON Schema, for the OpenAPI document. :ivar description: what it is.
    """

    name: str
    description: str
    pattern: str
    read: Callable[[str], Any]
    schema: Mapping[str, object]


def octets(name: str, length: int, description: str) -> Parameter:
    """A parameter of so many bytes, in lower-case hexadecimal."""
    pattern = f"[0-9a-f]{{{2 * length}}}"
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return Parameter(name, description, pattern, bytes.fromhex, schema)


def number(name: str, most: int, description: str) -> Parameter:
    """A parameter that is a whole number without leading zeros, up to ``most``."""
    digits = len(str(most)) - 1
    schema = {"type": "integer", "minimum": 0, "maximum": most}
    return Parameter(name, description, f"(?:0|[1-9][0-9]{{0,{digits}}})", int, schema)


def text(name: str, pattern: str, description: str) -> Parameter:
    """A parameter of a pattern that holds for the whole."""
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return Parameter(name, description, pattern, str, schema)


@frozen
class Head:
    """A request as far as it is known before its body.

    :ivar request: its parts that can be signed. :ivar length: of the body, in bytes.
    :ivar peer: role and name of the server that asks, as its certificate says.
    :ivar address: numeric address that it comes from.
    :ivar values: of the parameters of path and query.
    """

    route: Route
    request: SignableRequest
    length: int
    values: Mapping[str, Any]
    peer: tuple[str, str] | None = None
    address: str = ""

    def header(self, name: str) -> str | None:
        """The one value of a header field, name in lower case; None if it is not there.

        :raises MalformedMessage: it comes several times.
        """
        lines = self.request.fields.get(name, ())
        if len(lines) > 1:
            raise MalformedMessage(f"the field {name} comes {len(lines)} times")
        return lines[0].strip() if lines else None


class Receiver(Protocol):
    """Takes a body as it comes."""

    def write(self, data: bytes) -> None:
        """A piece came."""

    async def digest(self) -> bytes:
        """All pieces came: the SHA-256 of the body.

        :raises NTMobileError: it cannot be taken.
        """

    def close(self) -> None:
        """The request is over, or its body will not come to its end; may be called again."""


@frozen
class Call:
    """A request that was let in, all of it.

    :ivar caller: whom the route's access found. :ivar message: the body, where it is a document.
    :ivar body: the body, where it is octets.
    :ivar receiver: instead, who has taken it as it came.
    """

    head: Head
    caller: Any
    message: Any = None
    body: bytes = field(default=b"", repr=False)
    receiver: Receiver | None = None

    def value(self, name: str) -> Any:
        """The value of a parameter of path or query; None where a query has it not."""
        return self.head.values.get(name)


@define
class Answer:
    """What is answered, where all went well.

    :ivar document: to be sent as JSON, or :ivar body: octets as they are, or
    :ivar pieces: octets that come one after the other, :ivar length: so many in all.
    """

    status: int = 200
    document: Message | None = None
    body: bytes = b""
    pieces: AsyncGenerator[bytes, None] | None = None
    length: int = 0
    media: str = OCTETS_TYPE
    headers: tuple[tuple[str, str], ...] = ()


#: Who asks, by the head of a request; raises what it is answered with.
Access = Callable[[Head], Any]


@frozen
class Route:
    """One thing that can be asked.

    :ivar path: with parameters in braces. :ivar summary: a line. :ivar access: name of who may ask.
    :ivar body: the document in the request, None if there is none.
    :ivar octets: instead, octets of at most so many bytes.
    :ivar receive: makes who takes long ones as they come, of head and caller.
    :ivar answer: the document in the answer. :ivar media: instead, of what type it is.
    :ivar status: of success. :ivar problems: kinds that are answered besides those of every route.
    """

    method: str
    path: str
    summary: str
    access: str
    serve: Callable[[Call], Awaitable[Answer]]
    parameters: tuple[Parameter, ...] = ()
    query: tuple[Parameter, ...] = ()
    body: type[Message] | None = None
    body_limit: int = DOCUMENT_LIMIT
    octets: int = 0
    receive: Callable[[Head, Any], Receiver] | None = None
    answer: type[Message] | None = None
    media: str | None = None
    status: int = 200
    statuses: tuple[int, ...] = ()
    problems: tuple[Kind, ...] = ()

    @property
    def limit(self) -> int:
        """Most bytes of the body."""
        return self.octets or (self.body_limit if self.body is not None else 0)

    def pattern(self) -> re.Pattern[str]:
        """What paths of this route look like."""
        forms = {parameter.name: parameter.pattern for parameter in self.parameters}
        parts = re.split(r"\{([a-z_]+)\}", self.path)
        return re.compile(
            "".join(
                f"(?P<{part}>{forms[part]})" if odd % 2 else re.escape(part)
                for odd, part in enumerate(parts)
            )
        )


@define
class Table:
    """The routes of a server."""

    routes: Sequence[Route]
    _patterns: list[re.Pattern[str]] = Factory(
        lambda self: [route.pattern() for route in self.routes], takes_self=True
    )

    def find(self, method: str, path: str) -> tuple[Route, dict[str, Any]]:
        """The route of a request, and the values of its path.

        :raises Problem: there is nothing of that path, or it cannot be asked in that way.
        """
        allowed = []
        for route, pattern in zip(self.routes, self._patterns, strict=True):
            found = pattern.fullmatch(path)
            if found is None:
                continue
            if route.method == method:
                return route, {p.name: p.read(found[p.name]) for p in route.parameters}
            allowed.append(route.method)
        if not allowed:
            raise Problem(
                problems.UNKNOWN, "there is nothing of that path; see /v1/openapi.json for what is"
            )
        listed = ", ".join(sorted(allowed))
        raise Problem(problems.METHOD, f"only {listed} can be asked there", (("Allow", listed),))


def read_query(route: Route, query: str) -> dict[str, Any]:
    """The values of the parameters that a query has; others are ignored.

    :raises MalformedMessage: one is of another form, or comes twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_QUERY_LIMIT)
    except ValueError:
        raise MalformedMessage(f"a query of more than {_QUERY_LIMIT} parameters") from None
    found: dict[str, Any] = {}
    known = {parameter.name: parameter for parameter in route.query}
    for name, value in pairs:
        parameter = known.get(name)
        if parameter is None:
            continue
        if name in found or not re.fullmatch(parameter.pattern, value):
            raise MalformedMessage(f"{name} in the query is not {parameter.description}, once")
        found[name] = parameter.read(value)
    return found
