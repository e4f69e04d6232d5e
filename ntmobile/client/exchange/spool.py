"""Private files in the state directory: what is sent from memory, and what has come for programs.

::

    DIR/outbox/     content that was given as bytes, until it is stored
    DIR/received/   items that were fetched without the name of a file
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ntmobile.client.state import OUTBOX, RECEIVED
from ntmobile.errors import StorageFailed
from ntmobile.plugins.files import make_directory, write_file


class Spool:
    """Both of them.

    :param state: the state directory.
    """

    def __init__(self, state: Path) -> None:
        state = state.absolute()  # what is kept outlives this program's directory
        self._outbox = state / OUTBOX
        self._received = state / RECEIVED

    def keep(self, content: bytes) -> Path:
        """Write content that is to be sent to a file.

        :raises StorageFailed: it cannot be written.
        """
        path = self.new()
        try:
            write_file(path, content)
        except OSError as problem:
            raise StorageFailed(f"{path}: cannot be written: {problem.strerror}") from None
        return path

    def new(self) -> Path:
        """The name of a file to write content to that is to be sent."""
        try:
            make_directory(self._outbox)
        except OSError as problem:
            raise StorageFailed(f"{self._outbox}: cannot be made: {problem.strerror}") from None
        return self._outbox / os.urandom(8).hex()

    def holds(self, path: Path) -> bool:
        """Whether a file is one to be removed after it was sent."""
        return path.parent == self._outbox

    def remove(self, path: Path) -> None:
        """Remove a file, if it is one of these."""
        if self.holds(path):
            path.unlink(missing_ok=True)

    def sweep(self, sources: Iterable[str]) -> None:
        """Remove files that no upload needs: what wrote them ended before it was announced."""
        needed = {Path(one) for one in sources}
        if self._outbox.is_dir():
            for path in self._outbox.iterdir():
                if path not in needed:
                    path.unlink(missing_ok=True)

    def place(self, object: bytes) -> Path:
        """Where an item goes for which no file was named."""
        try:
            make_directory(self._received)
        except OSError as problem:
            raise StorageFailed(f"{self._received}: cannot be made: {problem.strerror}") from None
        return self._received / object.hex()
