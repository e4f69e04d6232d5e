"""Bodies of HTTP requests while they come: in memory where there is room, else in a file.

How fast a body comes is its client's business, so none may take the room of others for as long as
that takes: what finds no room in memory is written to a file without a name, and read when all of
it is there. Then it needs memory for as long as it is served, which is no client's business, and
waits its turn for that.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ntmobile.errors import StorageFailed, StorageFull
from ntmobile.protocols.http_limits import SMALL, Limits, Room

log = Logger()

#: Errors of a file system that has no room for more.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Bodies:
    """The bodies that one server is being sent.

    :param directory: of files for them; None: the system's directory for temporary files.
    """

    def __init__(self, limits: Limits, directory: Path | None) -> None:
        self.coming = Room(limits.bodies)
        self.served = Room(limits.served)
        self.directory = directory

    def open(self) -> IO[bytes]:
        """A file without a name: whatever happens, nothing of it stays."""
        return cast(IO[bytes], tempfile.TemporaryFile(dir=self.directory))

    def begin(self, length: int) -> Body:
        """A body of so many bytes will come."""
        if length <= SMALL:
            return Body(self, length)
        if self.coming.take(length):
            return Body(self, length, give_back=[lambda: self.coming.leave(length)])
        return Body(self, length, filed=True)


@define(eq=False)
class Body:
    """One body; close it when it is not needed any more.

    :ivar filed: whether it goes to a file.
    """

    _bodies: Bodies
    _length: int
    filed: bool = False
    give_back: list[Callable[[], None]] = field(factory=list)
    _pieces: list[bytes] = field(factory=list, init=False)
    _file: IO[bytes] | None = field(default=None, init=False)
    _problem: StorageFailed | None = field(default=None, init=False)

    def add(self, data: bytes) -> None:
        """A piece of it came."""
        if not self.filed:
            self._pieces.append(data)
        elif self._problem is None:
            try:
                if self._file is None:
                    self._file = self._bodies.open()
                self._file.write(data)
            except OSError as problem:
                self._failed(problem)

    def _failed(self, problem: OSError) -> None:
        text = f"{problem.strerror}; nothing was stored, try again later"
        log.error(
            "{where}: a request cannot be kept there: {problem}",
            where=str(self._bodies.directory or tempfile.gettempdir()),
            problem=problem.strerror,
        )
        self._problem = (StorageFull if problem.errno in _FULL else StorageFailed)(text)

    async def whole(self) -> bytes:
        """All of it, when there is room.

        :raises StorageFailed: it could not be kept while it came.
        """
        if not self.filed:
            data = b"".join(self._pieces)
            self._pieces.clear()
            return data
        if self._problem is None:
            await self._turn()
            data = self._read()
        if self._problem is not None:
            raise self._problem
        return data

    async def _turn(self) -> None:
        entered: Deferred[None] = Deferred()
        room = self._bodies.served
        if not room.take(self._length, lambda: entered.callback(None)):
            await entered
        self.give_back.append(lambda: room.leave(self._length))

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        try:
            self._file.seek(0)
            return self._file.read()
        except OSError as problem:
            self._failed(problem)
            return b""

    def close(self) -> None:
        """Give back what it took."""
        self._pieces.clear()
        file, self._file = self._file, None
        if file is not None:
            file.close()
        while self.give_back:
            self.give_back.pop()()
