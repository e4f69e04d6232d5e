"""DNS messages on the server's side: queries read strictly, responses written by twisted.names.

twisted.names reads messages leniently: what is cut off is left out, a dot inside a label passes for
two labels. A server that decides by name who sees what must not; so queries are read here, and only
what was read is answered. The question is echoed byte for byte, so its case is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from struct import Struct, error
from typing import Any, Final

from attrs import frozen
from twisted.names import dns

from ntmobile.errors import MalformedMessage
from ntmobile.machines.records import (
    Answer,
    Authority,
    Data,
    Kind,
    Question,
    Rcode,
    Record,
    ServicePort,
)

#: The most a UDP response may be without EDNS (RFC 1035, section 4.2.1).
PLAIN_LIMIT: Final = 512
#: The most a UDP response may be at all: what passes anywhere unfragmented (DNS flag day 2020).
UDP_LIMIT: Final = 1232
#: The most a response may be over TCP.
TCP_LIMIT: Final = 65535
#: The longest query accepted; real ones are below 512 bytes.
QUERY_LIMIT: Final = 4096

_HEADER: Final = Struct("!6H")
_QUESTION_TAIL: Final = Struct("!HH")
_RECORD_TAIL: Final = Struct("!HHIH")
_OPT_SIZE: Final = 11

_QR: Final = 0x8000
_AA: Final = 0x0400
_TC: Final = 0x0200
#: What a response takes over from its query: opcode, RD, CD.
_COPIED: Final = 0x7800 | 0x0100 | 0x0010

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


@frozen
class Edns:
    """What a query's OPT record says (RFC 6891)."""

    size: int
    version: int
    dnssec_ok: bool


@frozen
class Query:
    """A well-formed query.

    :ivar flags: the second word of the header, as it came.
    :ivar raw: the question section, as it came.
    :ivar edns: None if there is no OPT record.
    """

    id: int
    flags: int
    question: Question
    raw: bytes
    edns: Edns | None

    @property
    def udp_limit(self) -> int:
        """The largest response in bytes that may go back over UDP."""
        if self.edns is None:
            return PLAIN_LIMIT
        return min(max(self.edns.size, PLAIN_LIMIT), UDP_LIMIT)


def read(data: bytes) -> Query | bytes | None:
    """Read what came to a name server.

    :return: a query to answer; or the bytes to answer at once (FORMERR, NOTIMP, BADVERS), never
        longer than ``data``; or None for what gets no answer (no header, or itself a response).
    """
    if not _HEADER.size <= len(data) <= QUERY_LIMIT:
        return None
    identifier, flags = _HEADER.unpack_from(data)[:2]
    if flags & _QR:
        return None
    if flags & 0x7800:
        return _bare(identifier, flags, Rcode.NOTIMP)
    try:
        query = parse_query(data)
    except MalformedMessage:
        return _bare(identifier, flags, Rcode.FORMERR)
    if query.edns is not None and query.edns.version > 0:
        return encode(query, Answer(Rcode.BADVERS), query.udp_limit)
    return query


def parse_query(data: bytes) -> Query:
    """Parse a query that has one question and nothing else but an OPT or TSIG record.

    :raises MalformedMessage: anything else, or bytes left over.
    """
    try:
        identifier, flags, questions, answers, authority, additional = _HEADER.unpack_from(data)
        if questions != 1 or answers or authority or additional > 2:
            raise MalformedMessage("not one question, or records where a query has none")
        name, offset = _read_name(data, _HEADER.size)
        kind, klass = _QUESTION_TAIL.unpack_from(data, offset)
        offset += _QUESTION_TAIL.size
        raw = data[_HEADER.size : offset]
        edns = None
        for _ in range(additional):
            owner, offset = _read_name(data, offset)
            kind_, size, ttl, length = _RECORD_TAIL.unpack_from(data, offset)
            offset += _RECORD_TAIL.size + length
            if kind_ == Kind.OPT:
                if edns is not None or owner:
                    raise MalformedMessage("two OPT records, or one with a name")
                edns = Edns(size, ttl >> 16 & 0xFF, bool(ttl & 0x8000))
    except (error, IndexError) as problem:
        raise MalformedMessage("a DNS message ends too early") from problem
    if offset != len(data):
        raise MalformedMessage("a DNS message has another length than its records")
    return Query(identifier, flags, Question(name, kind, klass), raw, edns)


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    """The uncompressed name at ``offset`` (see :mod:`~ntmobile.machines.records`) and its end."""
    labels = []
    start = offset
    while size := data[offset]:
        if size > 63:
            raise MalformedMessage("a compressed or unknown label in a query")
        label = data[offset + 1 : offset + 1 + size]
        labels.append(_text(label))
        offset += 1 + size
        if offset - start > 254:
            raise MalformedMessage("a name longer than 255 bytes")
    return ".".join(labels), offset + 1


def _text(label: bytes) -> str:
    r"""A label in lower case, with ``\DDD`` for every byte that host names do not have."""
    lower = label.lower()
    if _PLAIN.issuperset(lower):
        return lower.decode("ascii")
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in lower)


def encode(query: Query, answer: Answer, limit: int) -> bytes:
    """The response to ``query``, at most ``limit`` bytes: with TC and empty if it would be longer.

    Additional records that do not fit are left out without TC (RFC 2181, section 9).
    """
    room = limit - (_OPT_SIZE if query.edns else 0)
    body = _Body(query)
    for record in (*answer.answers, *answer.authority):
        body.add(record)
    if _HEADER.size + body.size > room:
        return truncated(query)
    extra = 0
    for record in answer.additional:
        if not body.add_within(record, room - _HEADER.size):
            break
        extra += 1
    flags = _QR | (_AA if answer.authoritative else 0) | query.flags & _COPIED
    numbers = (len(answer.answers), len(answer.authority), extra)
    return _assemble(query, flags, answer.rcode, numbers, body.written())


def truncated(query: Query) -> bytes:
    """The response that makes the asker come again over TCP; never longer than the query."""
    return _assemble(query, _QR | _TC | query.flags & _COPIED, Rcode.NOERROR, (0, 0, 0), query.raw)


def _assemble(
    query: Query, flags: int, rcode: Rcode, numbers: tuple[int, int, int], body: bytes
) -> bytes:
    answers, authority, additional = numbers
    opt = b"" if query.edns is None else _opt(rcode, query.edns.dnssec_ok)
    header = _HEADER.pack(
        query.id, flags | rcode & 0xF, 1, answers, authority, additional + bool(opt)
    )
    return header + body + opt


def _opt(rcode: Rcode, dnssec_ok: bool) -> bytes:
    """Our OPT record: version 0, our size, the upper bits of the code, and DO as asked."""
    ttl = rcode >> 4 << 24 | (0x8000 if dnssec_ok else 0)
    return b"\0" + _RECORD_TAIL.pack(Kind.OPT, UDP_LIMIT, ttl, 0)


def _bare(identifier: int, flags: int, rcode: Rcode) -> bytes:
    """A response of nothing but a header, for what could not be read further."""
    return _HEADER.pack(identifier, _QR | flags & _COPIED | rcode, 0, 0, 0, 0)


class _Body:
    """Question and records of a response, written one after another with compressed names."""

    def __init__(self, query: Query) -> None:
        self._out = BytesIO()
        self._out.write(query.raw)
        self._offsets = _offsets(query)

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._out.tell()

    def written(self) -> bytes:
        """What was written."""
        return self._out.getvalue()

    def add(self, record: Record) -> None:
        """Write a record."""
        _header(record).encode(self._out, self._offsets)

    def add_within(self, record: Record, limit: int) -> bool:
        """Write a record unless it would go beyond ``limit``; say whether it is written."""
        before, offsets = self.size, dict(self._offsets)
        self.add(record)
        if self.size <= limit:
            return True
        self._out.truncate(before)
        self._out.seek(before)
        self._offsets = offsets
        return False


def _offsets(query: Query) -> dict[bytes, int]:
    """Where the question's name and its suffixes stand, for compression by twisted.names."""
    offsets: dict[bytes, int] = {}
    at = _HEADER.size
    rest = query.question.name
    raw = query.raw
    while rest and "\\" not in rest:
        offsets[rest.encode("ascii")] = at
        at += 1 + raw[at - _HEADER.size]
        rest = rest.partition(".")[2]
    return offsets


def _header(record: Record) -> dns.RRHeader:
    payload = _payload(record.data)
    return dns.RRHeader(record.name, record.data.kind, dns.IN, record.ttl, payload)


def _payload(data: Data) -> dns.IEncodableRecord:
    return _PAYLOADS[data.kind](data)


def _soa(data: Authority) -> dns.Record_SOA:
    times = (data.serial, data.refresh, data.retry, data.expire, data.minimum)
    return dns.Record_SOA(data.host, data.mailbox, *times)


def _srv(data: ServicePort) -> dns.Record_SRV:
    return dns.Record_SRV(data.priority, data.weight, data.port, data.target)


_PAYLOADS: Final[Mapping[Kind, Callable[[Any], dns.IEncodableRecord]]] = {
    Kind.A: lambda data: dns.Record_A(str(data.address)),
    Kind.AAAA: lambda data: dns.Record_AAAA(str(data.address)),
    Kind.NS: lambda data: dns.Record_NS(data.host),
    Kind.PTR: lambda data: dns.Record_PTR(data.host),
    Kind.SOA: _soa,
    Kind.SRV: _srv,
    Kind.HINFO: lambda data: dns.Record_HINFO(b"RFC8482", b""),
}
