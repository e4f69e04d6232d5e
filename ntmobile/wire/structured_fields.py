"""Structured fields of HTTP (RFC 8941): dictionaries, as signatures and digests use them.

Stricter than the RFC where it is lenient: sizes are bounded, a name may not come twice, base64 must
be in its one form, and decimals, which nothing here has, are refused. Every failure is a
:class:`~ntmobile.errors.MalformedMessage` (R11).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NoReturn

from attrs import frozen

from ntmobile.errors import MalformedMessage

#: Characters of one field, its lines joined.
FIELD_LIMIT: Final = 4096
#: Members of a dictionary, items of a list, and parameters of one of them.
MEMBERS: Final = 16

_KEY: Final = re.compile(r"[a-z*][a-z0-9_.*-]{0,63}")
_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,127}")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}(?![0-9.])")
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BYTES: Final = re.compile(r":([A-Za-z0-9+/=]*):")
_BOOLEAN: Final = re.compile(r"\?([01])")
_SPACES: Final = re.compile(r" *")
_GAP: Final = re.compile(r"[ \t]*")


@frozen
class Token:
    """A bare word, such as ``gzip``; texts in quotes are ``str``."""

    text: str


Bare = bool | int | str | bytes | Token
Parameters = tuple[tuple[str, Bare], ...]


@frozen
class Item:
    """One value and its parameters."""

    value: Bare
    parameters: Parameters = ()


@frozen
class InnerList:
    """Items in brackets, and the parameters of the whole."""

    items: tuple[Item, ...]
    parameters: Parameters = ()


Member = Item | InnerList


def parse_dictionary(text: str) -> dict[str, Member]:
    """Take a dictionary apart (section 4.2.2), in its order.

    :raises MalformedMessage: it is none, or too large.
    """
    if len(text) > FIELD_LIMIT:
        raise MalformedMessage(f"a field of {len(text)} characters, more than {FIELD_LIMIT}")
    return _Parser(text.strip(" ")).dictionary()


class _Parser:
    """A text and how far it is read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _fail(self, expected: str) -> NoReturn:
        raise MalformedMessage(f"a field without {expected} at character {self._at}")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _take(self, character: str) -> bool:
        taken = self._text.startswith(character, self._at)
        self._at += len(character) * taken
        return taken

    def dictionary(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        while self._at < len(self._text):
            key = self._key()
            if key in members or len(members) == MEMBERS:
                self._fail("names that differ" if key in members else "an end")
            members[key] = self._member() if self._take("=") else Item(True, self._parameters())
            self._match(_GAP)
            if self._at == len(self._text):
                break
            if not self._take(","):
                self._fail("a comma")
            self._match(_GAP)
            if self._at == len(self._text):
                self._fail("a member")
        return members

    def _key(self) -> str:
        found = self._match(_KEY)
        return found[0] if found else self._fail("a name")

    def _member(self) -> Member:
        if not self._take("("):
            return self._item()
        items: list[Item] = []
        while True:
            self._match(_SPACES)
            if self._take(")"):
                return InnerList(tuple(items), self._parameters())
            if len(items) == MEMBERS:
                self._fail("an end of the list")
            items.append(self._item())
            if self._text[self._at : self._at + 1] not in (" ", ")"):
                self._fail("a space or bracket")

    def _item(self) -> Item:
        return Item(self._bare(), self._parameters())

    def _parameters(self) -> Parameters:
        found: dict[str, Bare] = {}
        while self._take(";"):
            self._match(_SPACES)
            key = self._key()
            if key in found or len(found) == MEMBERS:
                self._fail("parameters that differ" if key in found else "an end of parameters")
            found[key] = self._bare() if self._take("=") else True
        return tuple(found.items())

    def _bare(self) -> Bare:
        if found := self._match(_STRING):
            return re.sub(r"\\(.)", r"\1", found[1])
        if found := self._match(_INTEGER):
            return int(found[0])
        if found := self._match(_BYTES):
            return _decoded(found[1])
        if found := self._match(_BOOLEAN):
            return found[1] == "1"
        if found := self._match(_TOKEN):
            return Token(found[0])
        return self._fail("a value")


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedMessage("a field with bytes that are no base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedMessage("a field with base64 that is not in its one form")
    return data


def serialize_bare(value: Bare) -> str:
    """A value as text (section 4.1.3.1); what has no form is :class:`MalformedMessage`."""
    if isinstance(value, bool):
        return f"?{value:d}"
    if isinstance(value, int):
        if abs(value) >= 10**15:
            raise MalformedMessage("a number of more than 15 digits")
        return str(value)
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode('ascii')}:"
    if isinstance(value, Token):
        if not _TOKEN.fullmatch(value.text):
            raise MalformedMessage("a word with characters that do not belong there")
        return value.text
    if not all(" " <= each <= "~" for each in value):
        raise MalformedMessage("a text with characters that do not belong there")
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'"{escaped}"'


def serialize_member(member: Member) -> str:
    """An item or inner list as text, parameters included (sections 4.1.1.1 to 4.1.3)."""
    if isinstance(member, InnerList):
        start = "(" + " ".join(serialize_member(each) for each in member.items) + ")"
    else:
        start = serialize_bare(member.value)
    return start + "".join(
        f";{key}" if value is True else f";{key}={serialize_bare(value)}"
        for key, value in member.parameters
    )


def serialize_dictionary(members: dict[str, Member]) -> str:
    """A dictionary as text (section 4.1.2)."""
    return ", ".join(
        key + serialize_member(member)[2:]
        if isinstance(member, Item) and member.value is True
        else f"{key}={serialize_member(member)}"
        for key, member in members.items()
    )
