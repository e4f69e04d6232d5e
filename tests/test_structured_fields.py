"""Structured fields (RFC 8941): one form, bounded, and nothing but MalformedMessage."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import MalformedMessage
from ntmobile.wire.structured_fields import (
    FIELD_LIMIT,
    MEMBERS,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    serialize_bare,
    serialize_dictionary,
)

KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
BARE = st.one_of(
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
    st.binary(max_size=12),
    st.from_regex(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,8}", fullmatch=True).map(Token),
)
PARAMETERS = st.dictionaries(KEYS, BARE, max_size=3).map(lambda found: tuple(found.items()))
ITEMS = st.builds(Item, BARE, PARAMETERS)
LISTS = st.builds(InnerList, st.lists(ITEMS, max_size=4).map(tuple), PARAMETERS)
DICTIONARIES = st.dictionaries(KEYS, st.one_of(ITEMS, LISTS), max_size=4)


class StructuredFieldTests(SynchronousTestCase):
    """Dictionaries and back."""

    def test_examples(self) -> None:
        """The examples of the RFC, section 3.2, are read as it says."""
        self.assertEqual(
            parse_dictionary('en="Applepie", da=:w4ZibGV0w6ZydGU=:'),
            {"en": Item("Applepie"), "da": Item("Æbletærte".encode())},
        )
        self.assertEqual(
            parse_dictionary("a=?0, b, c; foo=bar"),
            {"a": Item(False), "b": Item(True), "c": Item(True, (("foo", Token("bar")),))},
        )
        self.assertEqual(
            parse_dictionary('a=(1 "x");q=2,\tb=3'),
            {"a": InnerList((Item(1), Item("x")), (("q", 2),)), "b": Item(3)},
        )
        self.assertEqual(parse_dictionary(""), {})

    def test_refused(self) -> None:
        """What is no dictionary, or says something twice, is malformed."""
        for text in (
            "a=", "a=1,", "a=1;", "=1", "A=1", "a=1 b=2", "a=(1", "a=(1,2)", 'a=("x"1)', 'a="x',
            "a=:x:", "a=:YQ:", "a=:YR==:", "a=1.5", "a=?2", "a=1, a=2", "a=1;b;b", "a=1\n",
            'a="\t"', "a=é",
            "a=1234567890123456", "a=(((", 'a="\\n"',
        ):  # fmt: skip
            with self.assertRaises(MalformedMessage, msg=text):
                parse_dictionary(text)

    def test_bounds(self) -> None:
        """Fields that are long, or of many parts, are malformed."""
        self.assertRaises(MalformedMessage, parse_dictionary, f'a="{"x" * FIELD_LIMIT}"')
        many = ", ".join(f"k{number}" for number in range(MEMBERS + 1))
        self.assertRaises(MalformedMessage, parse_dictionary, many)
        self.assertRaises(MalformedMessage, parse_dictionary, f"a=({'1 ' * (MEMBERS + 1)})")
        items = ";".join(f"k{number}" for number in range(MEMBERS + 1))
        self.assertRaises(MalformedMessage, parse_dictionary, f"a=1;{items}")

    def test_no_form(self) -> None:
        """Values that have no form are not written."""
        for value in ("é", "\n", 10**15, Token("a b"), Token("")):
            self.assertRaises(MalformedMessage, serialize_bare, value)

    @settings(max_examples=60, deadline=None)
    @given(DICTIONARIES)
    def test_round_trip(self, members: dict[str, Item | InnerList]) -> None:
        """What is written is read again as it was."""
        text = serialize_dictionary(members)
        self.assertEqual(parse_dictionary(text), members)
        self.assertEqual(serialize_dictionary(parse_dictionary(text)), text)

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.sampled_from('ab=,;()":?\\1 \t*é\n'), max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text is a dictionary or malformed, and a dictionary has one form."""
        try:
            found = parse_dictionary(text)
        except MalformedMessage:
            return
        self.assertEqual(parse_dictionary(serialize_dictionary(found)), found)
