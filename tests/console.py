"""Console sessions in documents, as they are typed: read from Markdown, run, and compared.

In a fenced block of the language ``console`` a line that begins with ``$ `` is a command, ``> ``
continues it, and what follows is what it prints, both streams together. In what it prints ``...``
stands for anything within a line, and a line of ``...`` alone for any lines, also none. A comment
directly before the block tells the test, not the reader, what to do:

* ``<!-- test: await COMMAND -->`` repeats COMMAND until it succeeds, before the block;
* ``<!-- test: status N -->``: the last command of the block exits with N instead of 0.

The commands of a page are one session of one shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

#: The widest line that a page may show.
WIDTH = 80
#: Seconds that an awaited command may take to succeed.
PATIENCE = 20
_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<told>.*?) -->\n)?^```console\n(?P<body>.*?)^```$", re.M | re.S
)
_BEGIN, _END = "@@ begin", "@@ end"


@frozen
class Typed:
    """A command, and what a page says it does.

    :ivar line: number in the page. :ivar text: the command, of one line or several.
    :ivar shown: lines that it prints. :ivar status: with which it exits.
    :ivar awaited: a command that must succeed before it is typed, or empty.
    """

    line: int
    text: str
    shown: tuple[str, ...]
    status: int = 0
    awaited: str = ""

    def pattern(self) -> re.Pattern[str]:
        """What the output must match as a whole."""
        parts = []
        for line in self.shown:
            if line == "...":
                parts.append(r"(?:.*\n)*?")
            else:
                parts.append(re.escape(line).replace(r"\.\.\.", ".*") + "\n")
        return re.compile("".join(parts))

    def matches(self, output: str) -> bool:
        """Whether the command printed what the page shows."""
        plain = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
        return self.pattern().fullmatch(plain) is not None


@frozen
class Session:
    """The commands of one page."""

    page: Path
    commands: tuple[Typed, ...] = field(repr=False)

    @classmethod
    def read(cls, page: Path) -> Session:
        """Read a page."""
        return cls(page, tuple(_commands(page.read_text(encoding="utf-8"))))

    def too_wide(self) -> list[str]:
        """Lines that do not fit a terminal."""
        return [
            f"{self.page.name}:{command.line}: {line}"
            for command in self.commands
            for line in (f"$ {command.text}".splitlines() + list(command.shown))
            if len(line) > WIDTH
        ]

    def script(self, prologue: str = "") -> str:
        """A script for bash that types everything, and marks what each command prints.

        :param prologue: commands before them, whose output does not matter.
        """
        lines = ["exec 2>&1", prologue]
        for number, command in enumerate(self.commands):
            if command.awaited:
                awaited = f"{{ {command.awaited}; }} > /dev/null 2>&1 && break; sleep 0.2"
                lines.append(f"for _ in $(seq {PATIENCE * 5}); do {awaited}; done")
            lines += [f'echo "{_BEGIN} {number}"', command.text, f'echo "{_END} $?"']
        return "\n".join(lines) + "\n"

    def differences(self, output: str) -> list[str]:
        """What is not as the page says, in words; ``output`` is that of :meth:`script`."""
        found = []
        for number, command in enumerate(self.commands):
            did = re.search(
                rf"^{_BEGIN} {number}\n(?P<printed>.*?)^{_END} (?P<status>\d+)$",
                output,
                re.M | re.S,
            )
            where = f"{self.page.name}:{command.line}: $ {command.text}"
            if did is None:
                found.append(f"{where}\nwas not finished; all output:\n{output[-3000:]}")
                break
            printed, status = did["printed"], int(did["status"])
            if status != command.status:
                found.append(f"{where}\nexits with {status}, having printed:\n{printed}")
            elif not command.matches(printed):
                expected = "\n".join(command.shown)
                found.append(f"{where}\nprints:\n{printed}\nwhere the page says:\n{expected}\n")
        return found


def _commands(text: str) -> Iterator[Typed]:
    for block in _BLOCK.finditer(text):
        told = block["told"] or ""
        first = text.count("\n", 0, block.start("body")) + 1
        typed = list(_typed(block["body"], first))
        awaited = told.removeprefix("await ") if told.startswith("await ") else ""
        status = int(told.removeprefix("status ")) if told.startswith("status ") else 0
        if told and not awaited and not told.startswith("status "):
            raise ValueError(f"line {first}: a test cannot {told!r}")
        for number, one in enumerate(typed):
            last = number == len(typed) - 1
            yield Typed(
                one.line,
                one.text,
                one.shown,
                status if last else 0,
                awaited if not number else "",
            )


def _typed(body: str, first: int) -> Iterator[Typed]:
    line, text = 0, ""
    shown: list[str] = []
    for number, each in enumerate(body.splitlines(), first):
        if each.startswith("$ "):
            if text:
                yield Typed(line, text, tuple(shown))
            line, text, shown = number, each[2:], []
        elif each.startswith("> ") and text and not shown:
            text += "\n" + each[2:]
        elif not text:
            raise ValueError(f"line {number}: output before a command: {each!r}")
        else:
            shown.append(each.rstrip())
    if text:
        yield Typed(line, text, tuple(shown))
