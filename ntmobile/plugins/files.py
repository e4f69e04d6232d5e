"""Files that must be private, whole and durable (rule R6)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ntmobile.errors import ConfigurationError


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may enter, where there is none yet."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_file(path: Path, data: bytes, mode: int = 0o600, *, replace: bool = True) -> None:
    """Write a file as a whole: it is the old or the new one, also after a crash.

    :param mode: permissions; by default private.
    :param replace: whether a file that exists is replaced; if not, it is a
        :class:`FileExistsError`, decided at the last moment and without a race.
    :raises OSError: what was there still is; ``filename`` is the file's or its directory's.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            os.rename(name, path)
        else:
            os.link(name, path)
            os.unlink(name)
    except BaseException as problem:
        Path(name).unlink(missing_ok=True)
        if isinstance(problem, OSError) and problem.filename is None:
            problem.filename = str(path)  # writing, on a full disk, does not say what
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, limit: int = 65536) -> bytes:
    """Read a small file; what prevents it is a :class:`ConfigurationError`."""
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be read: {problem.strerror}") from None
    if len(data) > limit:
        raise ConfigurationError(f"{path}: larger than {limit} bytes")
    return data


def read_secret(path: Path, limit: int = 65536) -> bytes:
    """Read a file that must not be readable by everybody (rule R6)."""
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be read: {problem.strerror}") from None
    if mode & 0o004:
        raise ConfigurationError(f"{path}: everybody may read it; run chmod 600 {path}")
    return read_file(path, limit)
