"""The Linux system calls behind namespaces and TUN devices that Python 3.11 does not offer.

Thin, typed, and through ctypes, so that the small process in the namespace needs no other package.
``unshare(CLONE_NEWUSER)`` and ``setns`` of a user or mount namespace are refused to a process with
threads: call them before any starts.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_MOVE: Final = 0x2000
MS_REC: Final = 0x4000
MS_SLAVE: Final = 0x80000
MNT_DETACH: Final = 2

#: One packet a read: no packet information before it, but what is left to be done with it.
TUN_FLAGS: Final = 0x0001 | 0x1000 | 0x4000  # IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
_IFF_VNET_HDR: Final = 0x4000
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNGETIFF: Final = 0x800454D2
_TUNSETVNETHDRSZ: Final = 0x400454D8
#: What a device may leave to us, the most first: checksums; segments of TCP over IPv4 and IPv6,
#: with ECN; and since Linux 6.2 of UDP (TUN_F_CSUM, _TSO4, _TSO6, _TSO_ECN, _USO4, _USO6).
_OFFLOADS: Final = (0x6F, 0x0F, 0x01)
#: Of these, segments of UDP.
DATAGRAMS: Final = 0x60
_IFREQ: Final = struct.Struct("16sH22x")

_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process into new namespaces, the ``CLONE_NEW*`` of ``flags``."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Join the namespace behind a descriptor, which must be of this ``CLONE_NEW*`` kind."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, filesystem: str, flags: int, options: str = "") -> None:
    """Mount a filesystem, or bind or re-flag one with ``MS_BIND`` and its like."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(filesystem),
        ctypes.c_ulong(flags),
        os.fsencode(options),
    )
    _check(result, "mount", target)


def unmount(target: str) -> None:
    """Detach a mount; who still has files open in it keeps them."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), "umount", target)


def drop_capabilities() -> None:
    """Give up every capability of this thread: effective, permitted, inheritable and ambient."""
    numbers = [ctypes.c_ulong(n) for n in (_PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)]
    _check(_libc.prctl(ctypes.c_int(_PR_CAP_AMBIENT), *numbers), "prctl")
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def open_tun(name: str, flags: int = TUN_FLAGS) -> int:
    """Make (or take over) the TUN device ``name`` in the network namespace of this process.

    :return: its descriptor, non-blocking and closed on exec; the device goes with the last copy.
    :raises OSError: as open(2) of ``/dev/net/tun`` (with its file name) and ``TUNSETIFF`` say.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode("ascii"), flags))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def offload_tun(descriptor: int, header: int) -> int | None:
    """Have a TUN device leave cutting and checksums to us, and take what is joined.

    :param header: bytes of the header before each packet, if there is one.
    :return: what it will leave to us (the bits of :data:`DATAGRAMS` among it), perhaps nothing;
        ``None`` where there is no header: a device made without, or what is no TUN device.
    """
    asked = bytearray(_IFREQ.size)
    try:
        fcntl.ioctl(descriptor, _TUNGETIFF, asked)
        if not _IFREQ.unpack(asked)[1] & _IFF_VNET_HDR:
            return None
        fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("=i", header))
    except OSError:
        return None
    for offload in _OFFLOADS:
        try:
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, offload)
        except OSError:
            continue
        return offload
    return 0


def _check(result: int, call: str, path: str | None = None) -> None:
    """Raise the ``OSError`` of a call that did not return 0; its text names the call."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path)
