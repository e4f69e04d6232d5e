"""Namespaces as a lab uses them: the user namespace around it, and those of each host in it."""

from __future__ import annotations

import os
import signal
import socket

from ntmobile.lab import kernel

#: Name services of the real machine, which would answer in the place of the lab's.
_HIDDEN_DIRECTORIES = ("/run/nscd", "/run/systemd/resolve")


class HostNamespaces:
    """The namespaces of one host, held open by descriptors; no process need live in them."""

    def __init__(self) -> None:
        """Hold those that this process is in."""
        self.network = _open_namespace("net")
        self.mounts = _open_namespace("mnt")
        self.names = _open_namespace("uts")

    @classmethod
    def make(cls, name: str, own_etc: str) -> HostNamespaces:
        """Make new ones: an empty network, a host name, and an ``/etc`` of its own."""
        home = cls()
        try:
            kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS)
            socket.sethostname(name)
            _mount_etc(own_etc)
            return cls()
        finally:
            home.join()
            home.close()

    def join(self) -> None:
        """Move the calling process into this host (its directory becomes ``/``)."""
        kernel.setns(self.network, kernel.CLONE_NEWNET)
        kernel.setns(self.names, kernel.CLONE_NEWUTS)
        kernel.setns(self.mounts, kernel.CLONE_NEWNS)

    def close(self) -> None:
        """Let the kernel take the namespaces down (once no process is in them)."""
        for descriptor in (self.network, self.mounts, self.names):
            os.close(descriptor)


def _open_namespace(kind: str) -> int:
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _mount_etc(own: str) -> None:
    """Mount a host's own files over those of the same name in ``/etc``.

    Only from the lab's directory outwards: nothing of the machine is ever mounted *below* that
    directory, where the removal of the lab's files would find it.
    """
    for name in os.listdir(own):
        if os.path.exists(f"/etc/{name}"):
            kernel.mount(os.path.join(own, name), f"/etc/{name}", None, kernel.MS_BIND)


def enter_host(host: HostNamespaces, directory: str, *, privileged: bool) -> None:
    """In a fresh child: join a host; keep the capabilities over ``exec`` only if privileged."""
    kernel.die_with_parent(signal.SIGKILL)
    host.join()
    os.chdir(directory)
    if privileged:
        kernel.keep_capabilities_over_exec()


def own_pids_permitted() -> bool:
    """Say whether a pid namespace can be had with its ``/proc`` (containers often forbid that)."""
    probe = os.fork()
    if probe == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
            inner = os.fork()
            if inner == 0:
                mount_proc()
                os._exit(0)
            os._exit(0 if os.waitpid(inner, 0)[1] == 0 else 1)
        finally:
            os._exit(1)
    return os.waitpid(probe, 0)[1] == 0


def mount_proc() -> None:
    """Show, in ``/proc``, the processes of this pid namespace."""
    _keep_mounts_private()
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags)


def enter_user_namespace() -> None:
    """Become the owner of a new user namespace, under a user id that is never root's.

    So programs without capabilities of their own are as limited as an ordinary account's, also
    when the tests run as root: root appears as user 1000 inside.
    """
    outside, inside = (os.getuid(), os.getgid()), inside_identity()
    kernel.unshare(kernel.CLONE_NEWUSER)
    kernel.map_identity(*inside, *outside)


def inside_identity() -> tuple[int, int]:
    """Give the user and group id that this account has inside a lab."""
    return os.getuid() or 1000, os.getgid() or 1000


def hide_name_services() -> None:
    """Cover the name services of the real machine.

    ``/etc/resolv.conf`` may be a link to a file there; it stays, empty, to be mounted over.
    """
    _keep_mounts_private()
    for directory in filter(os.path.isdir, _HIDDEN_DIRECTORIES):
        files = [entry.path for entry in os.scandir(directory) if entry.is_file()]
        kernel.mount("tmpfs", directory, "tmpfs", 0)
        for path in files:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def _keep_mounts_private() -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
