"""Sections of TOML files, read key by key with exact complaints.

A value of a wrong type, a missing key and a key that nobody asked for are each a
:class:`~ntmobile.errors.ConfigurationError` that names file, key, and what is expected there.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final, TypeVar

from ntmobile.errors import ConfigurationError, InvalidName

_T = TypeVar("_T")


class _Required:
    """The type of :data:`REQUIRED`."""


#: The default of a key that must be there.
REQUIRED: Final = _Required()
#: Largest configuration file, in bytes.
FILE_LIMIT: Final = 1 << 20


class Section(Mapping[str, object]):
    """One table of a TOML file. A plugin gets its own, which also is a plain mapping.

    :ivar file: the file. :ivar directory: what relative paths in it start from.
    :ivar name: dotted name of the table; empty for the file's top.
    """

    def __init__(self, file: Path, name: str, values: Mapping[str, object]) -> None:
        self.file = file
        self.directory = file.parent
        self.name = name
        self._values = dict(values)
        self._asked: list[str] = []

    @classmethod
    def read(cls, file: Path) -> Section:
        """Read a file's top table; what is wrong with it is a :class:`ConfigurationError`."""
        try:
            with file.open("rb") as stream:
                data = stream.read(FILE_LIMIT + 1)
            if len(data) > FILE_LIMIT:
                raise ConfigurationError(f"{file}: larger than {FILE_LIMIT} bytes")
            return cls(file, "", tomllib.loads(data.decode("utf-8")))
        except OSError as problem:
            raise ConfigurationError(f"{file}: cannot be read: {problem.strerror}") from None
        except UnicodeDecodeError as problem:
            raise ConfigurationError(f"{file}: not UTF-8 at byte {problem.start}") from None
        except (ValueError, RecursionError) as problem:  # also a number of too many digits
            raise ConfigurationError(f"{file}: not TOML: {problem}") from None

    def __getitem__(self, key: str) -> object:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def problem(self, key: str, text: str) -> ConfigurationError:
        """An error about one key, to be raised."""
        return ConfigurationError(f"{self.file}: {self._full(key)}: {text}")

    def _full(self, key: str) -> str:
        shown = key if key.isprintable() else repr(key)
        return f"{self.name}.{shown}" if self.name else shown

    def _take(
        self, key: str, default: _T | _Required, expected: str, read: Callable[[object], _T]
    ) -> _T:
        """The value of ``key``; ``read`` raises ValueError or TypeError for a wrong one."""
        self._asked.append(key)
        if key not in self._values:
            if isinstance(default, _Required):
                raise self.problem(key, f"missing; expected {expected}")
            return default
        value = self._values[key]
        try:
            return read(value)
        except InvalidName as problem:
            raise self.problem(key, str(problem)) from None
        except (TypeError, ValueError):
            raise self.problem(key, f"expected {expected}, found {_shown(value)}") from None

    def text(
        self,
        key: str,
        default: str | _Required = REQUIRED,
        *,
        check: Callable[[str], str] = str,
        expected: str = "a text",
    ) -> str:
        """A text; ``check`` raises ValueError or InvalidName for one that is not acceptable."""
        return self._take(key, default, expected, lambda value: check(_is(str, value)))

    def texts(
        self,
        key: str,
        default: tuple[str, ...] | _Required = REQUIRED,
        *,
        check: Callable[[str], str] = str,
        expected: str = "a list of texts",
        least: int = 0,
    ) -> tuple[str, ...]:
        """A list of at least ``least`` texts."""

        def read(value: object) -> tuple[str, ...]:
            found = tuple(check(_is(str, each)) for each in _is(list, value))
            if len(found) < least:
                raise ValueError
            return found

        return self._take(key, default, expected, read)

    def addresses(
        self, key: str, default: tuple[str, ...] | _Required = REQUIRED
    ) -> tuple[str, ...]:
        """A list of one or more numeric IPv4 or IPv6 addresses, each in its usual text form."""
        expected = 'a list of addresses such as ["203.0.113.1", "2001:db8::1"]'
        return self.texts(
            key, default, check=lambda text: str(ip_address(text)), expected=expected, least=1
        )

    def networks(self, key: str) -> tuple[IPv4Network | IPv6Network, ...]:
        """A list of networks, empty if absent."""
        expected = 'a list of networks such as ["10.0.0.0/8"]'
        found = self.texts(key, (), check=lambda text: str(ip_network(text)), expected=expected)
        return tuple(ip_network(each) for each in found)

    def integer(self, key: str, default: int | _Required = REQUIRED, *, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""

        def read(value: object) -> int:
            if not low <= _is(int, value) <= high:
                raise ValueError
            return _is(int, value)

        return self._take(key, default, f"a whole number from {low} to {high}", read)

    def seconds(
        self, key: str, default: float | _Required = REQUIRED, *, low: float, high: float
    ) -> float:
        """A duration in seconds from ``low`` to ``high``."""

        def read(value: object) -> float:
            number = float(_is(int, value)) if isinstance(value, int) else _is(float, value)
            if not low <= number <= high:
                raise ValueError
            return number

        return self._take(key, default, f"seconds from {low:g} to {high:g}", read)

    def port(self, key: str, default: int | _Required = REQUIRED) -> int:
        """A port number."""
        return self.integer(key, default, low=1, high=65535)

    def path(self, key: str, default: str | _Required = REQUIRED) -> Path:
        """A path; a relative one starts from the file's directory."""
        return self.directory / self.text(key, default, expected="a path", check=_not_empty)

    def section(self, key: str, *, optional: bool = True) -> Section:
        """A table within; an optional one may be absent, which is as if it were empty."""
        default: Mapping[str, object] | _Required = {} if optional else REQUIRED
        values = self._take(
            key, default, f"a section [{self._full(key)}]", lambda value: _is(dict, value)
        )
        return Section(self.file, self._full(key), values)

    def plugin(self, key: str, default: str) -> tuple[str, Section]:
        """A plugin's name, ``default`` if absent, and the rest of its section for the plugin."""
        section = self.section(key)
        name = section.text("plugin", default, expected="the name of a plugin", check=_not_empty)
        rest = {each: value for each, value in section.items() if each != "plugin"}
        return name, Section(self.file, section.name, rest)

    def finish(self) -> None:
        """Complain about the first key that nobody asked for, with the likely spelling."""
        for key in self._values:
            if key not in self._asked:
                close = difflib.get_close_matches(key, self._asked, 1)
                known = ", ".join(sorted(set(self._asked))) or "none"
                hint = f"did you mean {close[0]!r}?" if close else f"known here: {known}"
                raise self.problem(key, f"unknown key; {hint}")


def _is(kind: type[_T], value: object) -> _T:
    """``value`` if it is of the TOML type ``kind`` (true and false are no numbers)."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError
    return value


def _not_empty(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError
    return text


def _shown(value: object) -> str:
    """A wrong value, short enough for one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def reject_unknown(section: str, values: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse a plugin's section with a key that is not among ``known``.

    For plugins that are also configured by programs, with any mapping.

    :param section: its name, for the text.
    :raises ConfigurationError: names the first such key.
    """
    names = sorted(known)
    for key in values:
        if key not in names:
            listed = ", ".join(names) or "none"
            raise ConfigurationError(f"unknown key {section}.{key}; known: {listed}")
