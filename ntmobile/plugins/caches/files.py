"""Blobs in a directory: a directory for each place, and in it a file for each part.

Names are made of random and hash digits and of numbers only, so nothing that a client says is part
of a path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from ntmobile.errors import StorageFailed, StorageFull
from ntmobile.plugins.caches.blobs import BlobName, Kept
from ntmobile.plugins.files import make_directory, sync_directory

log = Logger()

#: How long to wait for a server that is about to end, in seconds.
PATIENCE: Final = 5.0
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileBlobs:
    """See :class:`~ntmobile.plugins.caches.blobs.Blobs`.

    :param root: the directory; one server at a time uses it.
    :param keep_free: bytes of the file system that are left to others.
    """

    def __init__(self, root: Path, keep_free: int) -> None:
        self._root = root
        self._parts = root / "parts"
        self._keep_free = keep_free
        self._lock = -1

    # -- Opening

    def open(self, kept: Callable[[str], Kept]) -> int:
        """See the protocol."""
        try:
            make_directory(self._parts)
            sync_directory(self._root)
            self._take()
            return self._sweep(kept)
        except OSError as problem:
            raise _failure(problem, self._root) from None

    def _take(self) -> None:
        """See that no other server sweeps what this one writes."""
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = descriptor
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise StorageFailed(
                        f"{self._root}: another cache server uses it; stop that one first"
                    ) from None
                time.sleep(0.05)

    def _sweep(self, kept: Callable[[str], Kept]) -> int:
        """Remove what is not recorded: what was being written, or removed, when it was killed."""
        swept = 0
        for group in self._parts.iterdir():
            for directory in group.iterdir():
                known = {_file_name(part, digest) for part, digest in kept(directory.name)}
                for file in directory.iterdir():
                    if file.name not in known:
                        file.unlink()
                        swept += 1
                if not known:
                    directory.rmdir()
        return swept

    def close(self) -> None:
        """See the protocol."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- Blobs

    def _directory(self, place: str) -> Path:
        return self._parts / place[:2] / place

    def put(self, name: BlobName, data: bytes) -> None:
        """See the protocol."""
        directory = self._directory(name.place)
        try:
            try:
                self._write(directory, name, data)
            except FileNotFoundError:
                # Not made yet, or removed at this moment: then who records the part finds that.
                self._make(directory)
                self._write(directory, name, data)
        except OSError as problem:
            raise _failure(problem, directory) from None

    def _write(self, directory: Path, name: BlobName, data: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=directory)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, directory / _file_name(name.part, name.digest))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(directory)

    def _make(self, directory: Path) -> None:
        """Make a place's directory, durable with those above it."""
        make_directory(directory)
        directory.parent.chmod(0o700)  # mkdir gives the mode to the last one only
        sync_directory(directory.parent)
        sync_directory(self._parts)

    def get(self, name: BlobName, start: int, length: int) -> bytes:
        """See the protocol."""
        path = self._directory(name.place) / _file_name(name.part, name.digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, length, start)
            finally:
                os.close(descriptor)
        except OSError as problem:
            raise _failure(problem, path) from None

    def drop(self, name: BlobName) -> None:
        """See the protocol."""
        directory = self._directory(name.place)
        try:
            (directory / _file_name(name.part, name.digest)).unlink(missing_ok=True)
            directory.rmdir()
        except OSError as problem:
            if problem.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise _failure(problem, directory) from None

    def clear(self, place: str) -> None:
        """See the protocol."""
        directory = self._directory(place)
        try:
            shutil.rmtree(directory)
        except OSError as problem:
            # Not empty: a part is being written, and will be removed by who cannot record it.
            if problem.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise _failure(problem, directory) from None

    def free(self) -> int | None:
        """See the protocol."""
        try:
            found = os.statvfs(self._root)
        except OSError as problem:
            raise _failure(problem, self._root) from None
        return max(0, found.f_bavail * found.f_frsize - self._keep_free)


def _file_name(part: int, digest: bytes) -> str:
    return f"{part}.{digest.hex()}"


def _failure(problem: OSError, path: Path) -> StorageFailed:
    where = problem.filename or path
    if problem.errno in _FULL:
        # Clients are told this one.
        log.error("{where}: {problem}", where=where, problem=problem.strerror)
        return StorageFull(f"{problem.strerror}; nothing was stored, try again later")
    return StorageFailed(f"{where}: {problem.strerror}; nothing was stored")
