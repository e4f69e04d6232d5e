from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.dns_messages import (
    QR,
    REPLY_LIMIT,
    Edns,
    parse_query,
    parse_reply,
    read_name,
)
from ntmobile.wire.dns_records import (
    Alias,
    Authority,
    HostAddress,
    Kind,
    Pointer,
    Question,
    Record,
    ServerName,
    ServicePort,
)

HEADER = struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0)
NAME = b"\x05Phone\x03dC1\x00"
TAIL = struct.pack("!HH", 28, 1)
OPT = b"\0" + struct.pack("!HHIH", 41, 4096, 0x8000, 0)
QUERY = HEADER + NAME + TAIL


def with_additional(*records: bytes) -> bytes:
    return QUERY[:10] + struct.pack("!H", len(records)) + QUERY[12:] + b"".join(records)


def reply(*records: dns.RRHeader, authority: tuple[dns.RRHeader, ...] = ()) -> bytes:
    message = dns.Message(7, answer=1, maxSize=0)
    message.addQuery("x.example", dns.A)
    message.answers = list(records)
    message.authority = list(authority)
    return message.toStr()


def raw_reply(answers: int, body: bytes) -> bytes:
    return struct.pack("!6H", 7, QR, 1, answers, 0, 0) + b"\1x\0\0\1\0\1" + body


class QueryTests(SynchronousTestCase):
    def test_question(self) -> None:
        """The name comes in lower case, the question section as it was."""
        query = parse_query(QUERY)
        self.assertEqual(query.question, Question("phone.dc1", Kind.AAAA, 1))
        self.assertEqual((query.id, query.raw, query.edns), (0x1234, NAME + TAIL, None))
        self.assertEqual(query.udp_limit, 512)

    def test_edns(self) -> None:
        """OPT gives size, version and DO; sizes below 512 count as 512, big ones as ours."""
        query = parse_query(with_additional(OPT))
        self.assertEqual(query.edns, Edns(4096, 0, True))
        for size, limit in ((0, 512), (700, 700), (1232, 1232), (65535, 1232)):
            opt = b"\0" + struct.pack("!HHIH", 41, size, 0, 0)
            self.assertEqual(parse_query(with_additional(opt)).udp_limit, limit)

    def test_options_and_signature_are_skipped(self) -> None:
        """Options in OPT, and a TSIG record beside it, do no harm."""
        cookie = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 12) + bytes(12)
        tsig = b"\1k\0" + struct.pack("!HHIH", 250, 255, 0, 3) + b"abc"
        self.assertIsNotNone(parse_query(with_additional(cookie, tsig)).edns)

    def test_dots_in_labels(self) -> None:
        """A dot within a label stays apart from the dots between labels."""
        query = parse_query(HEADER + b"\x09alice.dc1\x00" + TAIL)
        self.assertEqual(query.question.name, "alice\\046dc1")
        binary = parse_query(HEADER + b"\x03a\x00\xff\x00" + TAIL)
        self.assertEqual(binary.question.name, "a\\000\\255")

    def test_malformed(self) -> None:
        """Cut off, left over, miscounted, compressed or absurd: one error."""
        long_name = (b"\x3f" + b"a" * 63) * 4 + b"\0"
        cases = [
            *(QUERY[:size] for size in range(len(QUERY))),
            QUERY + b"\0",
            struct.pack("!6H", 1, 0, 0, 0, 0, 0),
            struct.pack("!6H", 1, 0, 2, 0, 0, 0) + (NAME + TAIL) * 2,
            struct.pack("!6H", 1, 0, 1, 1, 0, 0) + NAME + TAIL,
            struct.pack("!6H", 1, 0, 1, 0, 0, 3) + NAME + TAIL + OPT * 3,
            with_additional(OPT, OPT),
            with_additional(b"\1a" + OPT),
            with_additional(OPT[:-1] + b"\x05"),
            HEADER + long_name + TAIL,
            HEADER + b"\xc0\x0c" + TAIL,
            HEADER + b"\x41" + b"a" * 65 + b"\0" + TAIL,
        ]
        for data in cases:
            self.assertRaises(MalformedMessage, parse_query, data)

    @given(st.binary(max_size=80))
    @example(HEADER + b"\xc0\xff" + TAIL)
    def test_garbage(self, data: bytes) -> None:
        """R11: arbitrary bytes are a query or a MalformedMessage, nothing else."""
        for candidate in (data, HEADER + data, QUERY[:-1] + data):
            with contextlib.suppress(MalformedMessage):
                parse_query(candidate)


class ReplyTests(SynchronousTestCase):
    def test_records(self) -> None:
        """Records of the types that matter are read, names in lower case."""
        soa = dns.Record_SOA("ns.Example", "root.example", 1, 2, 3, 4, 5)
        data = reply(
            dns.RRHeader("X.example", dns.A, ttl=9, payload=dns.Record_A("192.0.2.1")),
            dns.RRHeader("x.example", dns.AAAA, ttl=9, payload=dns.Record_AAAA("2001:db8::1")),
            dns.RRHeader("x.example", dns.NS, ttl=9, payload=dns.Record_NS("NS.x.example")),
            dns.RRHeader("x.example", dns.CNAME, ttl=9, payload=dns.Record_CNAME("y.example")),
            dns.RRHeader("x.example", dns.PTR, ttl=9, payload=dns.Record_PTR("z.example")),
            dns.RRHeader("x.example", dns.SRV, ttl=9, payload=dns.Record_SRV(1, 2, 3, "t.x")),
            dns.RRHeader("x.example", dns.TXT, ttl=9, payload=dns.Record_TXT(b"ignored")),
            authority=(dns.RRHeader("example", dns.SOA, ttl=9, payload=soa),),
        )
        parsed = parse_reply(data)
        self.assertEqual(
            [record.data for record in parsed.answers],
            [
                HostAddress(IPv4Address("192.0.2.1")),
                HostAddress(IPv6Address("2001:db8::1")),
                ServerName("ns.x.example"),
                Alias("y.example"),
                Pointer("z.example"),
                ServicePort(1, 2, 3, "t.x"),
            ],
        )
        self.assertEqual({record.name for record in parsed.answers}, {"x.example"})
        authority = Authority("ns.example", "root.example", 1, 2, 3, 4, 5)
        self.assertEqual(parsed.authority, (Record("example", 9, authority),))
        self.assertEqual(parsed.question, Question("x.example", Kind.A))

    def test_negative_ttl_is_zero(self) -> None:
        """A time to live with its highest bit set counts as zero (RFC 2181, section 8)."""
        body = b"\1x\0" + struct.pack("!HHIH", 1, 1, 1 << 31, 4) + bytes(4)
        self.assertEqual(parse_reply(raw_reply(1, body)).answers[0].ttl, 0)

    def test_lies(self) -> None:
        """Loops, forward pointers, false lengths and counts are malformed."""
        tail = struct.pack("!HHIH", 1, 1, 0, 4)
        for body in (
            b"\xc0\x13" + tail + bytes(4),  # points at itself
            b"\xc0\x20" + tail + bytes(20),  # points forward
            b"\xc0\x00" + tail + bytes(4),  # points into the header
            b"\1x\0" + tail + bytes(3),
            b"\1x\0" + struct.pack("!HHIH", 1, 1, 0, 5) + bytes(5),
            b"\1x\0" + struct.pack("!HHIH", 2, 1, 0, 1) + b"\1a\0",
        ):
            self.assertRaises(MalformedMessage, parse_reply, raw_reply(1, body))
        record = b"\1x\0" + tail + bytes(4)
        self.assertRaises(MalformedMessage, parse_reply, raw_reply(200, record * 200))
        self.assertRaises(MalformedMessage, parse_reply, raw_reply(0, bytes(REPLY_LIMIT)))
        self.assertRaises(MalformedMessage, parse_reply, QUERY)

    def test_pointer_chains_end(self) -> None:
        """A chain of pointers is followed backwards only, so it ends; its name stays below 256."""
        data = bytearray(b"\x01a\x00".rjust(15, b"\0"))
        for _ in range(400):
            data += b"\x01b" + struct.pack("!H", 0xC000 | (len(data) - 4 if len(data) > 15 else 12))
        self.assertRaises(MalformedMessage, read_name, bytes(data), len(data) - 4)
        self.assertEqual(read_name(bytes(data), 19), ("b.b.a", 23))

    @given(st.binary(max_size=60), st.integers(0, 4))
    def test_garbage(self, body: bytes, answers: int) -> None:
        """R11: arbitrary bytes are a reply or a MalformedMessage, nothing else."""
        for candidate in (body, raw_reply(answers, body)):
            with contextlib.suppress(MalformedMessage):
                parse_reply(candidate)

    @given(st.data())
    def test_mutations(self, data: st.DataObject) -> None:
        """R11: a reply with any bytes changed is a reply or a MalformedMessage."""
        whole = bytearray(
            reply(
                dns.RRHeader("a.x.example", dns.SRV, payload=dns.Record_SRV(1, 2, 3, "t.x")),
                dns.RRHeader("x.example", dns.NS, payload=dns.Record_NS("ns.x.example")),
                dns.RRHeader("x.example", dns.A, payload=dns.Record_A("192.0.2.1")),
            )
        )
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(MalformedMessage):
            parse_reply(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
