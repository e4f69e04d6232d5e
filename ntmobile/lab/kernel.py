"""The system calls behind namespaces that Python 3.11 does not offer yet.

Only the supervisor and the probe of :func:`ntmobile.lab.supervision.lab_unavailable` use them, in
processes without threads: ``unshare(CLONE_NEWUSER)`` and ``setns`` of a mount namespace are
refused to a process that has any.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    """Raise the ``OSError`` of a call that returned other than 0."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, first: int, second: int = 0) -> None:
    """Call ``prctl``; its unused arguments must be zero in all their bits."""
    numbers = [ctypes.c_ulong(number) for number in (first, second, 0, 0)]
    _checked(_libc.prctl(ctypes.c_int(option), *numbers), "prctl")


def unshare(flags: int) -> None:
    """Move this process (its children only, for ``CLONE_NEWPID``) into new namespaces."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int = 0) -> None:
    """Join the namespace behind a descriptor; ``kind`` is its CLONE_NEW* flag, or 0 for any."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, filesystem: str | None, flags: int) -> None:
    """Mount a filesystem, or bind ``source`` to ``target`` with ``MS_BIND``."""
    result = _libc.mount(
        source.encode(),
        target.encode(),
        None if filesystem is None else filesystem.encode(),
        ctypes.c_ulong(flags),
        None,
    )
    _checked(result, f"mount {target}")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process, so that it can end them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def keep_capabilities_over_exec() -> None:
    """Raise every capability held as ambient: the next program has them although it is not root."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    every = (1 << (last + 1)) - 1
    low, high = every & 0xFFFFFFFF, every >> 32
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
    _checked(_libc.capset(header, sets), "capset")
    for capability in range(last + 1):
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def map_identity(inside_uid: int, inside_gid: int, outside_uid: int, outside_gid: int) -> None:
    """Map one user and one group into the user namespace that this process has just made."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside_uid} {outside_uid} 1"),
        ("gid_map", f"{inside_gid} {outside_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
