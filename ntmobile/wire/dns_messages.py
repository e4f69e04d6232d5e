r"""Reading DNS messages strictly, at a bounded cost (RFC 1035, section 4; RFC 6891).

twisted.names reads leniently: what is cut off is left out, a dot inside a label passes for two
labels, a name may be as long as the message. Who decides by name who may see what, or reads what
strangers' servers answer, must not; so what comes is read here, and twisted.names writes.

Names become text as :mod:`ntmobile.wire.dns_records` says. A compression pointer must point to
before the name it stands in, and each further one to before the one it came from, so none can loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from struct import Struct, error
from typing import Final

from attrs import frozen

from ntmobile.errors import MalformedMessage
from ntmobile.wire.dns_records import (
    IN,
    Alias,
    Authority,
    Data,
    HostAddress,
    Kind,
    Pointer,
    Question,
    Record,
    ServerName,
    ServicePort,
)

#: The most a UDP response may be without EDNS (RFC 1035, section 4.2.1).
PLAIN_LIMIT: Final = 512
#: The most a UDP response may be at all: what passes anywhere unfragmented (DNS flag day 2020).
UDP_LIMIT: Final = 1232
#: The longest query accepted; real ones are below 512 bytes.
QUERY_LIMIT: Final = 4096
#: The longest reply accepted; a lookup's are below 1232 bytes.
REPLY_LIMIT: Final = 16384
#: Records of a reply's answer and authority sections that are read; more make it malformed.
RECORDS_LIMIT: Final = 128

#: Identifier, flags, and the numbers of questions, answers, authority and additional records.
HEADER: Final = Struct("!6H")
#: Type, class, TTL and data length of a record.
RECORD_TAIL: Final = Struct("!HHIH")
_QUESTION_TAIL: Final = Struct("!HH")
_SOA_TAIL: Final = Struct("!5I")
_SRV_HEAD: Final = Struct("!3H")

#: Flags (RFC 1035, section 4.1.1; RFC 4035, section 3.2.2): response, opcode, authoritative,
#: truncated, recursion desired and available, checking disabled.
QR: Final = 0x8000
OPCODE: Final = 0x7800
AA: Final = 0x0400
TC: Final = 0x0200
RD: Final = 0x0100
RA: Final = 0x0080
CD: Final = 0x0010

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


@frozen
class Reply:
    """What a name server answered.

    :ivar flags: the second word of the header, without the response code.
    :ivar rcode: see :class:`~ntmobile.wire.dns_records.Rcode`; may be any of 0 to 15.
    :ivar answers: the answer section's records of class IN and of types that are known here.
    :ivar authority: the same of the authority section.
    """

    id: int
    flags: int
    rcode: int
    question: Question | None
    answers: tuple[Record, ...]
    authority: tuple[Record, ...]


def parse_query(data: bytes) -> Query:
    """Parse a query that has one question and nothing else but an OPT or TSIG record.

    :raises MalformedMessage: anything else, or bytes left over.
    """
    try:
        identifier, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
        if questions != 1 or answers or authority or additional > 2:
            raise MalformedMessage("not one question, or records where a query has none")
        question, offset = _question(data)
        raw = data[HEADER.size : offset]
        edns = None
        for _ in range(additional):
            owner, offset = read_name(data, offset)
            kind, size, ttl, length = RECORD_TAIL.unpack_from(data, offset)
            offset += RECORD_TAIL.size + length
            if kind == Kind.OPT:
                if edns is not None or owner:
                    raise MalformedMessage("two OPT records, or one with a name")
                edns = Edns(size, ttl >> 16 & 0xFF, bool(ttl & 0x8000))
    except (error, IndexError) as problem:
        raise MalformedMessage("a DNS message ends too early") from problem
    if offset != len(data):
        raise MalformedMessage("a DNS message has another length than its records")
    return Query(identifier, flags, question, raw, edns)


def parse_reply(data: bytes) -> Reply:
    """Parse what a name server answered; its additional section is not read.

    :raises MalformedMessage: cut off, too long, too many records, or no response.
    """
    if len(data) > REPLY_LIMIT:
        raise MalformedMessage(f"a DNS reply of {len(data)} bytes")
    try:
        identifier, flags, questions, answers, authority, _ = HEADER.unpack_from(data)
        if not flags & QR or questions > 1 or answers + authority > RECORDS_LIMIT:
            raise MalformedMessage("no DNS reply, or one with absurd counts")
        question, offset = _question(data) if questions else (None, HEADER.size)
        found, offset = _records(data, offset, answers)
        above, offset = _records(data, offset, authority)
    except (error, IndexError) as problem:
        raise MalformedMessage("a DNS message ends too early") from problem
    return Reply(identifier, flags & ~0xF, flags & 0xF, question, found, above)


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """The name at ``offset``, and where what follows it begins.

    :raises MalformedMessage: a bad pointer, an unknown label type, or over 255 bytes.
    :raises IndexError: it is cut off.
    """
    labels = []
    end = None
    length = 1
    barrier = offset
    while size := data[offset]:
        if size >= 0xC0:
            target = (size & 0x3F) << 8 | data[offset + 1]
            end = offset + 2 if end is None else end
            if target >= barrier or target < HEADER.size:
                raise MalformedMessage("a compressed name does not point backwards")
            offset = barrier = target
            continue
        if size > 63:
            raise MalformedMessage("a label of an unknown type")
        length += 1 + size
        if length > 255:
            raise MalformedMessage("a name longer than 255 bytes")
        labels.append(_text(data[offset + 1 : offset + 1 + size]))
        offset += 1 + size
    return ".".join(labels), offset + 1 if end is None else end


def _text(label: bytes) -> str:
    r"""A label in lower case, with ``\DDD`` for every byte that host names do not have."""
    lower = label.lower()
    if _PLAIN.issuperset(lower):
        return lower.decode("ascii")
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in lower)


def _question(data: bytes) -> tuple[Question, int]:
    name, offset = read_name(data, HEADER.size)
    kind, klass = _QUESTION_TAIL.unpack_from(data, offset)
    return Question(name, kind, klass), offset + _QUESTION_TAIL.size


def _records(data: bytes, offset: int, count: int) -> tuple[tuple[Record, ...], int]:
    """The known ones of the ``count`` records at ``offset``, and where they end."""
    found = []
    for _ in range(count):
        name, offset = read_name(data, offset)
        kind, klass, ttl, length = RECORD_TAIL.unpack_from(data, offset)
        offset += RECORD_TAIL.size
        end = offset + length
        if end > len(data):
            raise MalformedMessage("a DNS record ends too early")
        read = _READERS.get(kind)
        if read is not None and klass == IN:
            content, stop = read(data, offset)
            if stop != end:
                raise MalformedMessage("a DNS record has another length than its data")
            # A TTL with the highest bit set counts as zero (RFC 2181, section 8).
            found.append(Record(name, ttl if ttl < 1 << 31 else 0, content))
        offset = end
    return tuple(found), offset


def _named(make: Callable[[str], Data]) -> Callable[[bytes, int], tuple[Data, int]]:
    """A reader of data that is one name."""

    def read(data: bytes, offset: int) -> tuple[Data, int]:
        name, offset = read_name(data, offset)
        return make(name), offset

    return read


def _a(data: bytes, offset: int) -> tuple[Data, int]:
    return HostAddress(IPv4Address(_octets(data, offset, 4))), offset + 4


def _aaaa(data: bytes, offset: int) -> tuple[Data, int]:
    return HostAddress(IPv6Address(_octets(data, offset, 16))), offset + 16


def _octets(data: bytes, offset: int, count: int) -> bytes:
    found = data[offset : offset + count]
    if len(found) != count:
        raise IndexError(offset)
    return found


def _soa(data: bytes, offset: int) -> tuple[Data, int]:
    host, offset = read_name(data, offset)
    mailbox, offset = read_name(data, offset)
    return Authority(host, mailbox, *_SOA_TAIL.unpack_from(data, offset)), offset + _SOA_TAIL.size


def _srv(data: bytes, offset: int) -> tuple[Data, int]:
    priority, weight, port = _SRV_HEAD.unpack_from(data, offset)
    target, offset = read_name(data, offset + _SRV_HEAD.size)
    return ServicePort(priority, weight, port, target), offset


_READERS: Final[Mapping[int, Callable[[bytes, int], tuple[Data, int]]]] = {
    Kind.A: _a,
    Kind.NS: _named(ServerName),
    Kind.CNAME: _named(Alias),
    Kind.SOA: _soa,
    Kind.PTR: _named(Pointer),
    Kind.AAAA: _aaaa,
    Kind.SRV: _srv,
}
