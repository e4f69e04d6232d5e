from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import inspect
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.machines.signalling.requests import MESSAGE_LIMIT
from ntmobile.wire.codec import (
    FRAME_LIMIT,
    Declaration,
    Message,
    declarations,
    declare,
    decode,
    decode_as,
    encode,
)
from ntmobile.wire.messages.coordination import InformationResponse, LinkAcknowledgement
from ntmobile.wire.messages.exchange import Document
from ntmobile.wire.messages.fields import Endpoint, Location
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    DirectionRequest,
    KeepAlive,
    NotificationRequest,
    PolicyRequest,
    RegistrationRequest,
)
from tests.messages import largest_message, of_message

DECLARED = tuple(declarations())
#: Tunnel messages may be padded to the size of a path; they are sealed, and no signalling.
SIGNALLED = [each for each in DECLARED if each.transport == "udp"]

ours = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)


#: What the tests add to a message at most, so that it stays within a frame.
ADDED = 1024


def fits(message: Message) -> bool:
    """Whether the sum of its fields, each within its bounds, leaves room in a frame."""
    try:
        return len(encode(message)) <= FRAME_LIMIT - ADDED
    except MalformedMessage as problem:
        if "outside 3 to" not in str(problem):
            raise
        return False


def any_message() -> st.SearchStrategy[Message]:
    """Some message of any declared type that fits a frame."""
    return st.sampled_from(DECLARED).flatmap(lambda each: of_message(each.type)).filter(fits)


def fields_of(data: bytes) -> list[Any]:
    """The MessagePack array after the number."""
    found: list[Any] = msgspec.msgpack.decode(data[2:], strict=False)
    return found


def fields_by_name(data: bytes) -> dict[str, Any]:
    """The MessagePack map after the number of a document."""
    found: dict[str, Any] = msgspec.msgpack.decode(data[2:])
    return found


def packed(number: int, fields: object) -> bytes:
    """A message of any fields, bounds or not."""
    return number.to_bytes(2, "big") + msgspec.msgpack.encode(fields)


class RoundTripTests(SynchronousTestCase):
    def test_every_message(self) -> None:
        """Every declared message, whatever its fields, comes back as it was."""

        def check(message: Message) -> None:
            assume(fits(message))
            data = encode(message)
            again = decode(data)
            self.assertEqual(again, message)
            self.assertIs(type(again), type(message))
            self.assertEqual(encode(again), data)

        few = settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
        for declaration in DECLARED:
            few(given(of_message(declaration.type))(check))()

    def test_largest_of_every_message(self) -> None:
        """R10: whatever the bounds of a signalling message allow fits a datagram."""
        for declaration in SIGNALLED:
            message = largest_message(declaration.type)
            self.assertEqual(decode(encode(message, MESSAGE_LIMIT), MESSAGE_LIMIT), message)

    @given(any_message(), st.sampled_from([bytes, bytearray, memoryview]))
    @ours
    def test_any_buffer(self, message: Message, kind: Any) -> None:
        """Bytes, bytearrays and views decode alike, and the result does not alias them."""
        buffer = bytearray(encode(message))
        again = decode(kind(buffer))
        buffer[:] = bytes(len(buffer))
        self.assertEqual(again, message)

    def test_read_only(self) -> None:
        """A message never changes."""
        message: Any = KeepAlive(1)  # what a type checker would forbid
        with self.assertRaises(AttributeError):
            message.generation = 2


class HostileTests(SynchronousTestCase):
    @given(any_message(), st.data())
    @ours
    def test_mutations(self, message: Message, data: st.DataObject) -> None:
        """R11: a changed, cut or lengthened message decodes within bounds or is malformed."""
        wire = bytearray(encode(message))
        for _ in range(data.draw(st.integers(1, 3))):
            where = data.draw(st.integers(0, len(wire) - 1))
            how = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
            if how == "flip":
                wire[where] ^= data.draw(st.integers(1, 255))
            elif how == "cut":
                del wire[max(1, where) :]
            elif how == "insert":
                wire[where:where] = data.draw(st.binary(min_size=1, max_size=8))
            else:
                wire += wire[where:]
        self.assert_harmless(bytes(wire))

    @given(st.sampled_from(DECLARED), st.binary(max_size=200))
    @ours
    def test_garbage(self, declaration: Declaration, body: bytes) -> None:
        """R11: bytes behind a known number decode within bounds or are malformed."""
        self.assert_harmless(declaration.number.to_bytes(2, "big") + body)

    @given(
        st.sampled_from(DECLARED),
        st.recursive(
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(-(1 << 63), (1 << 64) - 1),
                st.floats(),
                st.binary(max_size=70),
                st.text(max_size=20),
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=9), st.dictionaries(st.text(max_size=3), inner, max_size=2)
            ),
            max_leaves=20,
        ),
    )
    @ours
    def test_other_structures(self, declaration: Declaration, fields: object) -> None:
        """R11: well-formed MessagePack of the wrong shape is malformed, or within bounds."""
        self.assert_harmless(packed(declaration.number, fields))

    def assert_harmless(self, wire: bytes) -> None:
        """It is malformed, or what encoding accepts again."""
        try:
            message = decode(wire)
        except MalformedMessage:
            return
        self.assertEqual(decode(encode(message)), message)

    def test_unknown_number(self) -> None:
        """A number that nobody declared is malformed."""
        with self.assertRaisesRegex(MalformedMessage, "unknown number 0xffff"):
            decode(b"\xff\xff\x90")

    def test_size_before_decoding(self) -> None:
        """R11: what is too long or too short is refused before anything is looked at."""
        data = encode(KeepAlive(1))
        for wrong in (b"", b"\x02", data[:2], data + bytes(FRAME_LIMIT)):
            with self.assertRaisesRegex(MalformedMessage, f"a message of {len(wrong)} bytes"):
                decode(wrong)
        with self.assertRaisesRegex(MalformedMessage, "outside 3 to 2"):
            decode(data, 2)
        with self.assertRaisesRegex(MalformedMessage, "outside 3 to"):
            encode(RegistrationRequest(1, (), 1, 20, "x" * 200), 100)

    def test_depth(self) -> None:
        """R11: nesting without end, where a version to come may have a field, ends in one error."""
        for opened in (b"\x91", b"\x81\x01"):
            deep = b"\x02\x03\x93\x01\x00" + opened * 30_000
            with self.assertRaises(MalformedMessage):
                decode(deep)

    def test_claimed_lengths(self) -> None:
        """R11: a length of 4 GiB that is only claimed costs nothing."""
        for head in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
            for number in (0x0203, 0x0307, 0x0103, 0x0406):
                for before in (b"", b"\x92\x01", b"\x94\x01\x01", b"\x93\xa1a", b"\x94\x00\x00"):
                    with self.assertRaises(MalformedMessage):
                        decode(number.to_bytes(2, "big") + before + head)

    def test_bad_utf8(self) -> None:
        """R11: text that is not UTF-8 is malformed like everything else."""
        number = 0x0241
        for text in (b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"):
            body = b"\x93\xa1a\x01" + bytes([0xA0 + len(text)]) + text
            with self.assertRaises(MalformedMessage):
                decode(number.to_bytes(2, "big") + body)

    def test_map_for_array(self) -> None:
        """Fields have an order and no names: a map is malformed."""
        with self.assertRaises(MalformedMessage):
            decode(packed(0x0203, {"generation": 1}))

    def test_trailing_bytes(self) -> None:
        """A second object behind the message is malformed."""
        with self.assertRaises(MalformedMessage):
            decode(encode(KeepAlive(1)) + b"\xc0")

    def test_types_are_strict(self) -> None:
        """Numbers as text, floats for integers, integers for flags: malformed."""
        for wrong in (["1", 0], [1.5, 0], [True, 0], [None, 0], [b"1", 0]):
            with self.assertRaises(MalformedMessage):
                decode(packed(0x0203, wrong))

    def test_names(self) -> None:
        """R1: upper case, other letters, spaces and a newline at the end are no name's."""
        for name in ("", "Phone.alice", "phone alice", "phone.alice\n", "téléphone", "a" * 101):
            with self.assertRaises(MalformedMessage):
                encode(NotificationRequest(name, 1))
            with self.assertRaises(MalformedMessage):
                decode(packed(0x0241, [name, 1, ""]))
        for pattern in ("*.alice\n", "*.Alice", "?"):
            with self.assertRaises(MalformedMessage):
                encode(PolicyRequest(1, (pattern,)))

    def test_addresses(self) -> None:
        """An address has 4 or 16 bytes, a port is not 0, and a family is one of IP's."""
        for address, port in ((b"12345", 1), (b"123", 1), (b"1234", 0), (b"1234", 65536)):
            with self.assertRaises(MalformedMessage):
                decode(packed(0x0204, [1, [address, port]]))
        location = [1, [], [], [4, 6, 6], True]
        for families in ([7], [3], [4, 6, 6]):
            location[3] = families
            with self.assertRaises(MalformedMessage):
                decode(packed(0x0302, [0, "a", b"", location, False]))

    def test_encoding_validates_too(self) -> None:
        """R11: what is out of bounds is found by its sender."""
        with self.assertRaises(MalformedMessage):
            encode(KeepAlive(-1))
        with self.assertRaises(MalformedMessage):
            encode(DirectionRequest("phone.alice.dc1.example", b"short", 0, bytes(64)))
        with self.assertRaises(MalformedMessage):
            encode(LinkAcknowledgement(0, "x" * 201))
        with self.assertRaises(MalformedMessage):
            encode(LinkAcknowledgement(1 << 70))
        with self.assertRaises(MalformedMessage):
            encode(LinkAcknowledgement(0, "\ud800"))
        careless: Any = "soon"
        with self.assertRaises(MalformedMessage):
            encode(KeepAlive(careless))

    def test_error_names_the_message(self) -> None:
        """The one error says which message and what is wrong with it, in one line."""
        with self.assertRaises(MalformedMessage) as caught:
            decode(packed(0x0203, ["x", 0]))
        self.assertTrue(str(caught.exception).startswith("a Keep Alive that does not decode: "))
        self.assertNotIn("\n", str(caught.exception))


class VersionTests(SynchronousTestCase):
    @given(any_message(), st.lists(st.one_of(st.integers(0, 9), st.text(max_size=5)), max_size=5))
    @ours
    def test_unknown_fields_at_the_end(self, message: Message, more: list[object]) -> None:
        """Fields that a later version added at the end are ignored."""
        data = encode(message)
        fields: object
        if isinstance(message, Document):  # these go by names
            fields = fields_by_name(data) | {f"later {at}": one for at, one in enumerate(more)}
        else:
            fields = [*fields_of(data), *more]
        self.assertEqual(decode(data[:2] + msgspec.msgpack.encode(fields)), message)

    def test_missing_fields_at_the_end(self) -> None:
        """Fields with a default that an earlier version does not send have it."""
        self.assertEqual(decode(packed(0x0203, [5])), KeepAlive(5, 0))
        with self.assertRaises(MalformedMessage):
            decode(packed(0x0203, []))

    def test_unknown_fields_inside(self) -> None:
        """The same holds for the structures within a message."""
        data = packed(0x0302, [0, "a", b"", [1, [[b"1234", 5, "new"]], [], [], True, 7], False, 8])
        location = Location(1, (Endpoint(b"1234", 5),), ())
        self.assertEqual(decode(data), InformationResponse(0, "a", b"", location))


class DecodeAsTests(SynchronousTestCase):
    def test_that_kind(self) -> None:
        """What is of the kind comes back as it."""
        self.assertEqual(decode_as(KeepAlive, encode(KeepAlive(3))), KeepAlive(3))

    def test_another_kind(self) -> None:
        """Another message is malformed, and the error names both."""
        with self.assertRaisesRegex(
            MalformedMessage, "an? Acknowledgement where a Keep Alive belongs"
        ):
            decode_as(KeepAlive, encode(Acknowledgement()))


class DeclarationTests(SynchronousTestCase):
    def test_number_taken(self) -> None:
        """A number is given once, and is one of two bytes."""
        for number in (0x0203, 0, 65536):
            with self.assertRaises(ValueError):
                declare(number, "x", sender="a", receiver="b", transport="udp", protection="none")(
                    KeepAlive
                )

    def test_titles_and_transports(self) -> None:
        """Titles are unique; transports are of the few that there are."""
        self.assertEqual(len({each.title for each in DECLARED}), len(DECLARED))
        self.assertEqual(
            {each.transport for each in DECLARED}, {"udp", "link", "inner", "tunnel", "https"}
        )

    def test_secrets_are_not_shown(self) -> None:
        """R6: no message shows keys or passwords, should it be logged."""
        secret = {"password", "cache_key", "key", "keys", "temporal_key"}
        met = set()

        def marked(value: Any, name: str = "") -> Any:
            """The same, with secrets that stand out."""
            if isinstance(value, tuple):
                return tuple(marked(each, name) for each in value)
            if isinstance(value, msgspec.Struct):
                changed = {
                    each: marked(getattr(value, each), each) for each in value.__struct_fields__
                }
                return msgspec.structs.replace(value, **changed)
            if name in secret and isinstance(value, str | bytes):
                met.add(name)
                return b"SECRET" if isinstance(value, bytes) else "SECRET"
            return value

        for declaration in DECLARED:
            message = marked(largest_message(declaration.type))
            self.assertNotIn("SECRET", repr(message))
        self.assertEqual(met, secret)

    def test_bounded(self) -> None:
        """R11: every text, byte string and tuple of every message has an upper bound."""
        seen: set[object] = set()

        def unbounded(found: inspect.Type) -> Iterator[object]:
            match found:
                case inspect.StructType(cls, fields) if cls not in seen:
                    seen.add(cls)
                    for each in fields:
                        yield from unbounded(each.type)
                case inspect.UnionType(types):
                    for one in types:
                        yield from unbounded(one)
                case inspect.StrType() | inspect.BytesType() | inspect.VarTupleType():
                    if found.max_length is None:
                        yield found
                    if isinstance(found, inspect.VarTupleType):
                        yield from unbounded(found.item_type)

        for declaration in DECLARED:
            self.assertEqual(list(unbounded(inspect.type_info(declaration.type))), [])
