"""DNS messages that we write: responses and questions, with the records of twisted.names.

The question is echoed byte for byte, so the case that the asker chose is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from struct import pack
from typing import Any, Final

from twisted.names import dns

from ntmobile.errors import MalformedMessage
from ntmobile.wire.dns_messages import (
    AA,
    CD,
    HEADER,
    OPCODE,
    QR,
    QUERY_LIMIT,
    RA,
    RD,
    RECORD_TAIL,
    TC,
    UDP_LIMIT,
    Query,
    parse_query,
)
from ntmobile.wire.dns_records import (
    Answer,
    Authority,
    Data,
    Kind,
    Rcode,
    Record,
    ServicePort,
)

#: The most a response may be over TCP.
TCP_LIMIT: Final = 65535
#: The longest text of an extended error, in bytes.
REMARK_LIMIT: Final = 200

_EXTENDED_ERROR: Final = 15

#: What a response takes over from its query: opcode, RD, CD.
_COPIED: Final = OPCODE | RD | CD


def read(data: bytes) -> Query | bytes | None:
    """Read what came to a name server.

    :return: a query to answer; or the bytes to answer at once (FORMERR, NOTIMP, BADVERS), never
        longer than ``data``; or None for what gets no answer (no header, or itself a response).
    """
    if not HEADER.size <= len(data) <= QUERY_LIMIT:
        return None
    identifier, flags = HEADER.unpack_from(data)[:2]
    if flags & QR:
        return None
    if flags & OPCODE:
        return _bare(identifier, flags, Rcode.NOTIMP)
    try:
        query = parse_query(data)
    except MalformedMessage:
        return _bare(identifier, flags, Rcode.FORMERR)
    if query.edns is not None and query.edns.version > 0:
        return encode(query, Answer(Rcode.BADVERS), query.udp_limit)
    return query


def encode_question(identifier: int, name: str, kind: Kind) -> bytes:
    """A query for a recursive name server."""
    message = dns.Message(identifier, recDes=1)
    message.addQuery(name, kind)
    return message.toStr()


def encode(query: Query, answer: Answer, limit: int) -> bytes:
    """The response to ``query``, at most ``limit`` bytes: with TC and empty if it would be longer.

    Additional records that do not fit are left out without TC (RFC 2181, section 9).
    """
    opt = _opt(query, answer)
    room = limit - len(opt) - HEADER.size
    body = _Body(query)
    for record in (*answer.answers, *answer.authority):
        body.add(record)
    if body.size > room:
        return truncated(query)
    extra = 0
    for record in answer.additional:
        if not body.add_within(record, room):
            break
        extra += 1
    flags = (
        (AA if answer.authoritative else 0) | (RA if answer.recursion else 0) | answer.rcode & 15
    )
    numbers = (len(answer.answers), len(answer.authority), extra)
    return _assemble(query, flags, numbers, body.written(), opt)


def truncated(query: Query) -> bytes:
    """The response that makes the asker come again over TCP; never longer than the query."""
    return _assemble(query, TC, (0, 0, 0), query.raw, _opt(query, Answer()))


def _assemble(
    query: Query, flags: int, numbers: tuple[int, int, int], body: bytes, opt: bytes
) -> bytes:
    answers, authority, additional = numbers
    flags |= QR | query.flags & _COPIED
    header = HEADER.pack(query.id, flags, 1, answers, authority, additional + bool(opt))
    return header + body + opt


def _opt(query: Query, answer: Answer) -> bytes:
    """Our OPT record if the query has one: version 0, our size, the code's upper bits, DO."""
    if query.edns is None:
        return b""
    ttl = answer.rcode >> 4 << 24 | (0x8000 if query.edns.dnssec_ok else 0)
    options = b""
    if answer.remark is not None:
        code, text = answer.remark
        options = pack("!H", code) + text.encode("utf-8")[:REMARK_LIMIT]
        options = pack("!HH", _EXTENDED_ERROR, len(options)) + options
    return b"\0" + RECORD_TAIL.pack(Kind.OPT, UDP_LIMIT, ttl, len(options)) + options


def _bare(identifier: int, flags: int, rcode: Rcode) -> bytes:
    """A response of nothing but a header, for what could not be read further."""
    return HEADER.pack(identifier, QR | flags & _COPIED | rcode, 0, 0, 0, 0)


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
    at = HEADER.size
    rest = query.question.name
    raw = query.raw
    while rest and "\\" not in rest:
        offsets[rest.encode("ascii")] = at
        at += 1 + raw[at - HEADER.size]
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
    Kind.CNAME: lambda data: dns.Record_CNAME(data.host),
    Kind.PTR: lambda data: dns.Record_PTR(data.host),
    Kind.SOA: _soa,
    Kind.SRV: _srv,
    Kind.HINFO: lambda data: dns.Record_HINFO(b"RFC8482", b""),
}
