"""Makes ``docs/protocol/messages.md`` from the declarations and the vectors of all messages.

``python -m docs.messages`` writes the page, and a vector for each message that has none yet. A
vector that is there stays as it is: a change that no longer reads it is no compatible change. The
tests read the vectors, and compare the page.
"""

from __future__ import annotations

import inspect as python
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

import ntmobile.wire.messages  # noqa: F401 - declares them all
from ntmobile.wire.codec import Declaration, Message, declarations, encode
from ntmobile.wire.messages import (
    account,
    coordination,
    exchange,
    realtime,
    relaying,
    tunnel,
)
from ntmobile.wire.messages.fields import Endpoint

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "protocol" / "messages.md"
VECTORS: Final = ROOT / "tests" / "vectors" / "messages.json"
#: Bytes of an example that the page shows.
SHOWN: Final = 256

CONVERSATIONS: Final = (
    (account, "Login, identity and revocation"),
    (realtime, "Client and coordinator"),
    (coordination, "Between servers"),
    (relaying, "Client and relay server"),
    (exchange.coordinators, "Stored data: client and coordinator"),
    (exchange.caches, "Stored data: client and cache server"),
    (exchange.servers, "Stored data: between servers"),
    (tunnel, "End to end"),
)

TRANSPORTS: Final = {
    "udp": "a UDP datagram",
    "link": "a frame over TLS 1.3",
    "inner": "a frame in the inner TLS session",
    "tunnel": "a datagram of the tunnel",
    "https": "a JSON document over HTTPS",
}

#: Text of examples, by field; other texts are ``phone.alice.dc1.ntm.example``.
TEXTS: Final = {
    "allow": "*.ntm.example",
    "application": "org.example.chat",
    "avoid": "rs1.dc1.ntm.example",
    "cn": "laptop.bob.dc2.ntm.example",
    "detail": "said in words",
    "device": "phone",
    "domain": "dc1.ntm.example",
    "destination": "laptop.bob.dc2.ntm.example",
    "destinations": "laptop.bob.dc2.ntm.example",
    "fqdns": "laptop.bob.dc2.ntm.example",
    "issuer": "abcd2345",
    "item": "holiday",
    "message": "",
    "password": "correct horse battery staple",
    "peer": "laptop.bob.dc2.ntm.example",
    "reason": "one behind NAT: direct",
    "relay_only": "*.other.example",
    "service": "pictures",
    "revoked": "laptop.bob.dc2.ntm.example",
    "source": "203.0.113.7",
    "suffix": "other.example",
    "user": "alice",
    "version": "0.1",
}
#: Numbers of examples, by field; others are small.
NUMBERS: Final = {
    "expires": 1_790_000_000,
    "generation": 1_790_000_000_123,
    "interval": 25,
    "issued": 1_790_000_000_123,
    "keepalive": 25,
    "lifetime": 60,
    "mtu": 1280,
    "octets": 123_456_789,
    "port": 4330,
    "seconds": 600,
    "sequence": 7,
    "time": 1_790_000_000_123,
    "translated": 4,
}


# -- examples


def _filled(name: str, low: int, high: int) -> bytes:
    """Bytes that differ from field to field, at least one where a field may have any."""
    start = sum(name.encode()) % 251
    size = low or min(high, 16)
    return bytes((start + step) % 256 for step in range(size))


def _integer(found: inspect.IntType, name: str, cls: type) -> int:
    number = NUMBERS.get(name, 1)
    if name == "version" and cls is account.LoginResponse:
        number = 7
    low = found.ge or 0
    high = found.le if found.le is not None else (found.lt or 1 << 62) - 1
    return max(low, min(number, high))


def _value(found: inspect.Type, name: str, cls: type) -> Any:
    match found:
        case inspect.Metadata(inner):
            return _value(inner, name, cls)
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return _integer(found, name, cls)
        case inspect.BytesType():
            return _filled(name, found.min_length or 0, found.max_length or 16)
        case inspect.StrType():
            return TEXTS.get(name, "phone.alice.dc1.ntm.example")[: found.max_length]
        case inspect.VarTupleType(item):
            if isinstance(item, inspect.StructType) and item.cls is Endpoint:
                low = Endpoint(bytes((203, 0, 113, 7)), 40007)
                high = Endpoint(bytes.fromhex("20010db8000000000000000000000007"), 40007)
                return (low, high)[: found.max_length]
            return (_value(item, name, cls),) * max(1, found.min_length or 0)
        case inspect.LiteralType(values):
            return values[0]
        case inspect.UnionType(types):
            some = next(one for one in types if not isinstance(one, inspect.NoneType))
            return _value(some, name, cls)
        case inspect.StructType(inner_cls):
            return example(inner_cls)
    raise AssertionError(f"a field of a type that has no example yet: {found}")


def example(cls: type[msgspec.Struct]) -> Any:
    """A message or structure with every field filled."""
    if cls is Endpoint:
        return Endpoint(bytes((203, 0, 113, 7)), 40007)
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return cls(**{each.name: _value(each.type, each.name, cls) for each in info.fields})


def plain(value: object) -> Any:
    """A value as JSON has it: structures by field name, bytes in hex."""
    match value:
        case msgspec.Struct():
            names = value.__struct_fields__
            return {name: plain(getattr(value, name)) for name in names}
        case bytes():
            return value.hex()
        case tuple() | list():
            return [plain(one) for one in value]
    return value


def vector(declaration: Declaration) -> dict[str, Any]:
    """A new vector."""
    message: Message = example(declaration.type)
    return {
        "number": f"{declaration.number:#06x}",
        "title": declaration.title,
        "fields": plain(message),
        "hex": encode(message).hex(),
    }


def read_vectors() -> dict[int, dict[str, Any]]:
    """The committed vectors, by number."""
    if not VECTORS.exists():
        return {}
    found = json.loads(VECTORS.read_text("utf-8"))
    return {int(one["number"], 16): one for one in found}


def complete_vectors() -> dict[int, dict[str, Any]]:
    """The committed vectors, and new ones for messages that have none."""
    known = read_vectors()
    return {each.number: known.get(each.number) or vector(each) for each in declarations()}


# -- the page


def _bounds(low: int | None, high: int | None, unit: str) -> str:
    if low == high and low is not None:
        return f"{low} {unit}"
    if low:
        return f"{low} to {high} {unit}"
    return f"at most {high} {unit}"


def described(found: inspect.Type) -> str:
    """A field's type and bounds, in words."""
    match found:
        case inspect.Metadata(inner):
            return described(inner)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            low = found.ge or 0
            high = found.le if found.le is not None else (found.lt or 0) - 1
            power = high.bit_length()
            shown = f"2^{power} - 1" if high == (1 << power) - 1 and power > 16 else str(high)
            return f"integer, {low} to {shown}"
        case inspect.BytesType():
            return "bytes, " + _bounds(found.min_length, found.max_length, "long")
        case inspect.StrType():
            text = "name" if found.pattern else "text"
            if found.pattern and "*" in found.pattern:
                text = "pattern of names"
            return f"{text}, " + _bounds(found.min_length, found.max_length, "characters")
        case inspect.VarTupleType(item):
            return f"list, {_bounds(found.min_length, found.max_length, 'items')}: " + described(
                item
            )
        case inspect.LiteralType(values):
            return " or ".join(f"`{value}`" for value in values)
        case inspect.UnionType(types):
            some = [described(one) for one in types if not isinstance(one, inspect.NoneType)]
            return " or ".join(some) + ", or nil"
        case inspect.StructType(cls):
            known: dict[type, str] = {one.type: one.title for one in declarations()}
            anchor = known.get(cls, cls.__name__).lower().replace(" ", "-")
            return f"[{cls.__name__}](#{anchor})"
    raise AssertionError(f"a field of a type that has no words yet: {found}")


def _default(field: inspect.Field) -> str:
    if field.required:
        return ""
    value = field.default
    if value in ("", b"", ()):
        return "empty"
    if isinstance(value, bytes):
        return f"{len(value)} zero bytes"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nil"}[value]
    return str(value)


def _documentation(cls: type) -> tuple[str, dict[str, str]]:
    """A docstring's text, and what it says of each field; both as Markdown."""
    text = python.cleandoc(cls.__doc__ or "")
    text = re.sub(r":(?:class|func|meth|attr):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = text.replace("``", "`")
    head, *rest = re.split(r"\s*:ivar (\w+):\s*", text)
    names, texts = rest[::2], rest[1::2]
    found: dict[str, str] = {}
    waiting: list[str] = []
    for name, said in zip(names, texts, strict=True):
        waiting.append(name)
        if said.strip():  # ":ivar a: :ivar b: of both"
            found.update(dict.fromkeys(waiting, " ".join(said.split())))
            waiting = []
    return " ".join(head.split()), found


def _table(cls: type[msgspec.Struct], said: dict[str, str]) -> Iterator[str]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    if not info.fields:
        yield "No fields."
        return
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for field in info.fields:
        yield (
            f"| `{field.name}` | {described(field.type)} | {_default(field)} "
            f"| {said.get(field.name, '')} |"
        )


def _hex(data: bytes) -> Iterator[str]:
    yield "```"
    yield from textwrap.wrap(data[:SHOWN].hex(), 64)
    if len(data) > SHOWN:
        yield f"... {len(data)} bytes, all of them in tests/vectors/messages.json"
    yield "```"


def _structures() -> list[type[msgspec.Struct]]:
    """The structures that messages carry, in the order in which they are met."""
    found: dict[type[msgspec.Struct], None] = {}

    declared = {each.type for each in declarations()}

    def walk(kind: inspect.Type) -> None:
        match kind:
            case inspect.StructType(cls, fields):
                if cls not in declared:
                    found.setdefault(cls)
                for field in fields:
                    walk(field.type)
            case inspect.VarTupleType(item):
                walk(item)
            case inspect.UnionType(types):
                for one in types:
                    walk(one)
            case inspect.Metadata(inner):
                walk(inner)

    for declaration in declarations():
        walk(inspect.type_info(declaration.type))
    walk(inspect.type_info(account.DeviceList))
    walk(inspect.type_info(exchange.Manifest))
    return list(found)


def _message(declaration: Declaration, data: bytes) -> Iterator[str]:
    text, said = _documentation(declaration.type)
    yield from ("", f"### {declaration.title}", "", text, "")
    yield f"Number `{declaration.number:#06x}`, from {declaration.sender} to {declaration.receiver}"
    yield f"in {TRANSPORTS[declaration.transport]}. Protection: {declaration.protection}."
    yield ""
    yield from _table(declaration.type, said)
    yield ""
    yield from _hex(data)


INTRODUCTION: Final = """\
# Messages

<!-- Made by python -m docs.messages; do not edit. -->

Every message is its number, two bytes big endian, followed by one MessagePack array with its
fields in this order. Structures within it are arrays too. Unknown fields at the end are ignored,
fields with a default may be missing at the end; anything else that does not fit is a malformed
message and is dropped. The messages about stored data are the exception: they and their structures
are maps by field name, and JSON objects of the same names over HTTPS, with bytes in base64.

In a sealed signalling datagram the encoded message stands in an envelope: flags (1 byte; 1 marks a
response), identifier (4 bytes). In a frame it stands behind length (4), flags (1; 1 a response, 2 a
message without response) and identifier (4).

The examples are made to be read: their certificates, keys and signatures are patterns.
"""


def page(vectors: dict[int, dict[str, Any]]) -> str:
    """The whole page."""
    lines = [INTRODUCTION.rstrip()]
    for module, title in CONVERSATIONS:
        lines += ["", f"## {title}"]
        for declaration in declarations():
            if declaration.type.__module__ == module.__name__:
                data = bytes.fromhex(vectors[declaration.number]["hex"])
                lines += _message(declaration, data)
    lines += ["", "## Structures"]
    for cls in _structures():
        text, said = _documentation(cls)
        lines += ["", f"### {cls.__name__}", "", text, "", *_table(cls, said)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write what is missing of the vectors, and the page."""
    vectors = complete_vectors()
    VECTORS.write_text(json.dumps(list(vectors.values()), indent=1) + "\n", "utf-8")
    PAGE.write_text(page(vectors), "utf-8")


if __name__ == "__main__":
    main()
