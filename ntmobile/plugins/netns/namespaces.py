"""Making the namespaces: the caller's own identity inside, all capabilities over the network."""

from __future__ import annotations

import os
from typing import Final

from ntmobile.plugins import linux

#: Names below ``/proc/PID/ns`` and their kinds, in the order in which they must be joined.
KINDS: Final = (
    ("user", linux.CLONE_NEWUSER),
    ("net", linux.CLONE_NEWNET),
    ("mnt", linux.CLONE_NEWNS),
)


def isolate() -> None:
    """Move this process, which must have no threads, into new user, network and mount namespaces.

    The caller keeps its user and group id: ssh and others refuse to work as a root that is none.
    Mounts and unmounts of the system still appear inside; ours do not appear outside.

    :raises OSError: the system forbids it; see :mod:`~ntmobile.plugins.netns.permission`.
    """
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWNS)
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_SLAVE)


def open_own() -> tuple[int, ...]:
    """Open the namespaces of this process, in the order of :data:`KINDS`."""
    return tuple(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name, _ in KINDS)


def join(descriptors: list[int]) -> None:
    """Join namespaces that :func:`open_own` opened; closes them.

    The process, which must have no threads, gets all capabilities over them. What it is in already
    is left alone. Its working directory becomes ``/``.
    """
    for (name, kind), descriptor in zip(KINDS, descriptors, strict=True):
        if not os.path.samestat(os.fstat(descriptor), os.stat(f"/proc/self/ns/{name}")):
            linux.setns(descriptor, kind)
        os.close(descriptor)
