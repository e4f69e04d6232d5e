"""The stored data of the demo: a file and a message for a laptop that is off."""

from __future__ import annotations

import json
import secrets
import shlex
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from ntmobile.demo.platform import CN, Platform
from ntmobile.demo.program import ntm
from ntmobile.lab.supervision import LabError

FILE: Final = "holiday.jpg"
NOTE: Final = "the view from here"
MESSAGE: Final = "Dinner at eight?"
#: Bytes of the file: two parts.
SIZE: Final = 5_000_000


@frozen
class Ran:
    """A command as somebody would type it, and what it printed."""

    typed: str
    output: str


@define(eq=False)
class Mail:
    """Sends and fetches by commands.

    :ivar items: that came through.
    """

    platform: Platform
    items: int = field(default=0, init=False)
    _content: bytes = field(factory=lambda: secrets.token_bytes(SIZE), init=False, repr=False)
    _listed: list[dict[str, Any]] = field(factory=list, init=False)

    async def send_file(self) -> Ran:
        """The phone sends a file."""
        path = self.platform.directory / FILE
        path.write_bytes(self._content)
        return await self._ntm("phone", "send", CN, path, "--note", NOTE)

    async def send_message(self) -> Ran:
        """The phone sends a line from standard input."""
        command = self._command("phone", "send", CN, "-")
        line = f"echo {shlex.quote(MESSAGE)} | {shlex.join(command)}"
        output = await self.platform.run("phone", "sh", "-c", line, name="send-message")
        return Ran(f"echo {shlex.quote(MESSAGE)} | ntm send {CN} -", output)

    async def inbox(self) -> Ran:
        """The laptop lists what waits."""
        self._listed = json.loads((await self._ntm("laptop", "inbox", "--json")).output)
        return await self._ntm("laptop", "inbox")

    async def get_file(self) -> Ran:
        """It fetches the file."""
        target = self.platform.directory / f"received-{FILE}"
        return await self._ntm("laptop", "get", self._id(FILE), "-o", target)

    async def get_message(self) -> Ran:
        """It reads the message."""
        ran = await self._ntm("laptop", "get", self._id(""), "-o", "-")
        if ran.output != f"{MESSAGE}\n":
            raise LabError(f"another message came: {ran.output!r}")
        self.items += 1
        return ran

    async def sent(self) -> Ran:
        """The phone asks what became of it."""
        return await self._ntm("phone", "sent")

    def check(self) -> None:
        """See that the file is the one that was sent. :raises LabError: it is not."""
        if (self.platform.directory / f"received-{FILE}").read_bytes() != self._content:
            raise LabError("another file came than was sent")
        self.items += 1

    @property
    def summary(self) -> str:
        """A line about it."""
        return f"items, {SIZE / 1e6:.0f} MB, sent while the laptop was off; all fetched"

    def _id(self, name: str) -> str:
        for one in self._listed:
            if one["name"] == name:
                found: str = one["id"][:8]
                return found
        raise LabError(f"not in the inbox: {name or 'the message'}")

    def _command(self, device: str, command: str, *words: str | Path) -> list[str]:
        return ntm(command, "--state", self.platform.state(device), *words)

    async def _ntm(self, device: str, command: str, *words: str | Path) -> Ran:
        argv = self._command(device, command, *words)
        output = await self.platform.run(device, *argv, name=f"{device}-{command}")
        typed = [one.name if isinstance(one, Path) else one for one in words]
        shown = output.replace(f"{self.platform.directory}/", "")
        return Ran(shlex.join(["ntm", command, *typed]), shown)
