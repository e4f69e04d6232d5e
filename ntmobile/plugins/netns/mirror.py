"""A directory of links to another, in which some files are copies that belong to this account.

In a user namespace where root is nobody, root's files belong to nobody. ssh reads such a file as
its ``ssh_config``, but refuses those that it includes; a copy that belongs to the user it accepts.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path


def mirror(source: Path, target: Path, copied: tuple[str, ...]) -> None:
    """Make ``target``, an existing directory, show ``source``, or bring it up to date.

    No directory is ever removed, lest it be one of the system's that somebody has mounted there.

    :param copied: which files are copied: patterns of paths below ``source``. All else, also what
        cannot be read, is a link to where it is in ``source``.
    """
    present = set(os.listdir(source))
    for name in set(os.listdir(target)) - present:
        _unlink(target / name)
    for name in present:
        here, there = source / name, target / name
        deeper = tuple(path.partition("/")[2] for path in copied if path.startswith(f"{name}/"))
        if deeper and here.is_dir():
            there.mkdir(mode=0o755, exist_ok=True)
            mirror(here, there, deeper)
        elif any(fnmatch(name, pattern) for pattern in copied) and here.is_file():
            _copy(here, there)
        elif not there.is_symlink():
            _link(here, there)


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
        if target.is_symlink() or not target.exists() or target.read_bytes() != content:
            new = target.with_name(f".{target.name}.new")
            new.write_bytes(content)
            new.chmod(0o644)
            new.replace(target)
    except OSError:
        _link(source, target)


def _link(source: Path, target: Path) -> None:
    _unlink(target)
    if not target.exists():
        # A relative link of the system's must not be followed from another depth.
        target.symlink_to(os.readlink(source) if source.is_symlink() else source)


def _unlink(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
