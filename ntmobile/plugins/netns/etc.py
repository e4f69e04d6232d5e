"""Name services inside: an ``/etc`` of our own, and the system's caches out of sight.

``/etc`` becomes a small tmpfs: each directory of the real one is bound, each file is a symbolic
link into the real one (at ``/etc/.host``), and ``resolv.conf`` and ``nsswitch.conf`` are ours. So
programs see changes of the real files, also where a new one is renamed over an old one. An
overlayfs needs less work, but shows a renamed file's old content and lists new files that it then
cannot open; a bound ``resolv.conf`` vanishes when the system renames a new one over it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ntmobile.plugins import linux
from ntmobile.plugins.netns.mirror import mirror

#: Where programs inside ask for names.
RESOLVER: Final = "127.0.0.53"

RESOLV_CONF: Final = f"nameserver {RESOLVER}\n"

#: Directories of sockets by which the C library would ask the real system for names.
HIDDEN: Final = ("/run/nscd", "/var/run/nscd", "/run/systemd/resolve")

#: What ssh includes; see :mod:`~ntmobile.plugins.netns.mirror`. By directory of ``/etc``.
COPIED: Final = {
    "ssh": ("ssh_config.d/*",),
    "crypto-policies": ("back-ends/openssh.config",),
}

_HOST: Final = ".host"
_FLAGS: Final = linux.MS_NOSUID | linux.MS_NODEV

#: What an entry is: file type, device, inode.
_Identity = tuple[int, int, int]


def nsswitch(real: str) -> str:
    """Give ``nsswitch.conf`` with ``hosts`` by files and DNS alone, and all else as it was."""
    kept = [line for line in real.splitlines() if line.partition(":")[0].strip() != "hosts"]
    return "\n".join([*kept, "hosts: files dns", ""])


class NameServices:
    """The view of ``/etc`` in the mount namespace of this process.

    :param etc: another directory than ``/etc``, for tests.
    :param hidden: directories to cover.
    """

    def __init__(self, etc: Path = Path("/etc"), hidden: Iterable[str] = HIDDEN) -> None:
        self._etc = etc
        self._host = etc / _HOST
        self._hidden = tuple(hidden)
        self._written: dict[str, Callable[[], str]] = {
            "resolv.conf": lambda: RESOLV_CONF,
            "nsswitch.conf": lambda: nsswitch(_text(self._host / "nsswitch.conf")),
        }
        self._shown: dict[str, _Identity] = {}
        self._device = -1
        self._root_is_nobody = False

    def build(self, stage: Path) -> None:
        """Mount it; once in a mount namespace.

        :param stage: an existing directory, of which nothing is changed in the end. What is bound
            with all that is mounted below would bring our tmpfs along, were it there already.
        """
        self._root_is_nobody = os.geteuid() != 0 and os.stat(self._etc).st_uid != 0
        linux.mount("ntm-etc", str(stage), "tmpfs", _FLAGS, "mode=0755,size=16m")
        try:
            self._device = os.stat(stage).st_dev
            (stage / _HOST).mkdir()
            _bind(str(self._etc), str(stage / _HOST))
            linux.mount(str(stage), str(self._etc), "none", linux.MS_MOVE)
        except BaseException:
            linux.unmount(str(stage))
            raise
        self.refresh()

    def refresh(self) -> None:
        """Show entries that are new or have become another, and hide caches that are new.

        :raises OSError: what is at ``/etc`` is not ours, so nothing may be changed there.
        """
        if os.stat(self._etc).st_dev != self._device:
            raise OSError(f"{self._etc} is not the one made for the virtual network")
        present = {entry.name: entry for entry in os.scandir(self._host)}
        for name in [name for name in self._shown if name not in present]:
            self._remove(name)
        for name, entry in present.items():
            if name != _HOST and name not in self._written:
                self._show(entry)
        for name, text in self._written.items():
            self._write(name, text())
        for directory in self._hidden:
            _hide(directory)

    def _show(self, entry: os.DirEntry[str]) -> None:
        identity = _identify(entry)
        at = self._etc / entry.name
        if self._shown.get(entry.name) != identity:
            self._remove(entry.name)
            if entry.is_symlink():
                at.symlink_to(os.readlink(entry.path))
            elif not entry.is_dir():
                at.symlink_to(os.path.join(_HOST, entry.name))
            else:
                at.mkdir()
                if not self._is_mirrored(entry.name):
                    _bind(entry.path, str(at))
            self._shown[entry.name] = identity
        if stat.S_ISDIR(identity[0]) and self._is_mirrored(entry.name):
            mirror(self._host / entry.name, at, COPIED[entry.name])

    def _is_mirrored(self, name: str) -> bool:
        return self._root_is_nobody and name in COPIED

    def _remove(self, name: str) -> None:
        identity = self._shown.get(name)
        if identity is None:
            return
        at = self._etc / name
        if not stat.S_ISDIR(identity[0]):
            at.unlink()
        elif self._is_mirrored(name):
            return
        else:
            linux.unmount(str(at))
            at.rmdir()
        del self._shown[name]

    def _write(self, name: str, text: str) -> None:
        at = self._etc / name
        if not at.exists() or _text(at) != text:
            at.write_text(text, encoding="utf-8", errors="surrogateescape")
            at.chmod(0o644)


def _identify(entry: os.DirEntry[str]) -> _Identity:
    """Give what must be shown anew when it differs; a link is right for any file of the name."""
    found = entry.stat(follow_symlinks=False)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFREG:
        return (kind, 0, 0)
    return (kind, found.st_dev, found.st_ino)


def _bind(source: str, target: str) -> None:
    """Show ``source`` with all that is mounted below it at ``target`` too."""
    linux.mount(source, target, "none", linux.MS_BIND | linux.MS_REC)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _hide(directory: str) -> None:
    """Cover a directory that has something in it."""
    try:
        if os.listdir(directory):
            linux.mount("ntm-hidden", directory, "tmpfs", _FLAGS, "mode=0755,size=4k")
    except OSError:
        return  # there is none, or it may not be entered anyway
