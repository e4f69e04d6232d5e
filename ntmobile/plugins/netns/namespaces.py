"""Making and joining the namespaces: one's own identity inside, and all capabilities there."""

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

    Everyone keeps the identity they have outside: ssh and others refuse to work as a root that is
    none. Mounts and unmounts of the system still appear inside; ours do not appear outside.

    :raises OSError: the system forbids it; see :mod:`~ntmobile.plugins.netns.permission`.
    """
    uid, gid = os.geteuid(), os.getegid()  # nobody's, once in the namespace
    if uid == 0:
        mapped = _unshare_as_root()
    else:
        linux.unshare(linux.CLONE_NEWUSER)
        mapped = False
    if not mapped:
        _map_one(uid, gid)
    linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWNS)
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_SLAVE)


def _map_one(uid: int, gid: int) -> None:
    """Be oneself in the user namespace, and its only inhabitant."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def _unshare_as_root() -> bool:
    """Make a user namespace where every account is itself; False if root may not map others here.

    So root's programs, sshd for one, can work for other accounts as they do outside. Such maps may
    be written only by a process that is outside.
    """
    maps = {name: _identity_map(f"/proc/self/{name}") for name in ("uid_map", "gid_map")}
    wait, go = os.pipe()
    outside = os.fork()
    if outside == 0:
        try:
            os.close(go)
            os.read(wait, 1)
            for name, text in maps.items():
                _write(f"/proc/{os.getppid()}/{name}", text)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(wait)
    try:
        linux.unshare(linux.CLONE_NEWUSER)
    finally:
        os.close(go)
        _, status = os.waitpid(outside, 0)
    return status == 0


def _identity_map(path: str) -> str:
    """Map every id that exists here to itself."""
    with open(path, encoding="ascii") as file:
        ranges = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in ranges)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


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
