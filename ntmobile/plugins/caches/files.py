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
from contextlib import suppress
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from ntmobile.errors import NoSuchItem, StorageFailed, StorageFull
from ntmobile.plugins.caches.blobs import BlobName, Kept
from ntmobile.plugins.files import make_directory, sync_directory

log = Logger()

#: How long to wait for a server that is about to end, in seconds.
PATIENCE: Final = 5.0
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileWriter:
    """See :class:`~ntmobile.plugins.caches.blobs.BlobWriter`: a file without its name yet.

    What was written is sent to the disk at once, so that little is left to wait for in the end.
    """

    def __init__(self, directory: Path, name: BlobName) -> None:
        self._directory = directory
        self._target = directory / _file_name(name.part, name.digest)
        self._descriptor, self._temporary = tempfile.mkstemp(prefix=".new-", dir=directory)  # 0600
        self._size = 0

    def write(self, *pieces: bytes) -> None:
        """See the protocol."""
        try:
            written = os.writev(self._descriptor, pieces)
            if written < sum(map(len, pieces)):
                data = memoryview(b"".join(pieces))
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
            # Begins to write it, and waits for nothing; pages that are not on the disk yet stay.
            os.posix_fadvise(self._descriptor, self._size, written, os.POSIX_FADV_DONTNEED)
            self._size += written
        except OSError as problem:
            raise _failure(problem, self._directory) from None

    def keep(self) -> None:
        """See the protocol."""
        try:
            os.fsync(self._descriptor)
            os.rename(self._temporary, self._target)
            self._close()
            sync_directory(self._directory)
        except FileNotFoundError:
            raise NoSuchItem("the object was removed meanwhile; send its parts again") from None
        except OSError as problem:
            raise _failure(problem, self._directory) from None

    def drop(self) -> None:
        """See the protocol."""
        if self._descriptor >= 0:
            self._close()
            with suppress(OSError):
                os.unlink(self._temporary)
            with suppress(OSError):
                self._directory.rmdir()  # where nothing else came

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


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
        #: Directories that are known to outlive a crash; none of them is ever removed.
        self._groups: set[Path] = set()

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
        writer = self.begin(name)
        try:
            writer.write(data)
            writer.keep()
        finally:
            writer.drop()

    def begin(self, name: BlobName) -> FileWriter:
        """See the protocol."""
        directory = self._directory(name.place)
        try:
            try:
                return FileWriter(directory, name)
            except FileNotFoundError:
                # Not made yet, or removed at this moment: then who records the part finds that.
                self._make(directory)
                return FileWriter(directory, name)
        except OSError as problem:
            raise _failure(problem, directory) from None

    def _make(self, directory: Path) -> None:
        """Make a place's directory, durable with those above it."""
        make_directory(directory)
        directory.parent.chmod(0o700)  # mkdir gives the mode to the last one only
        sync_directory(directory.parent)
        if directory.parent not in self._groups:
            sync_directory(self._parts)
            self._groups.add(directory.parent)

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
