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

#: Where programs inside ask for names.
RESOLVER: Final = "127.0.0.53"

RESOLV_CONF: Final = f"nameserver {RESOLVER}\n"

#: Sockets by which the C library would ask the real system for names.
HIDDEN: Final = ("/run/nscd", "/var/run/nscd", "/run/systemd/resolve")

_HOST: Final = ".host"
_FLAGS: Final = linux.MS_NOSUID | linux.MS_NODEV


def nsswitch(real: str) -> str:
    """Give ``nsswitch.conf`` with ``hosts`` by files and DNS alone, and all else as it was."""
    kept = [line for line in real.splitlines() if line.partition(":")[0].strip() != "hosts"]
    return "\n".join([*kept, "hosts: files dns", ""])


class NameServices:
    """The view of ``/etc`` in the mount namespace of this process.

    :param etc: another directory than ``/etc``, for tests.
    """

    def __init__(self, etc: Path = Path("/etc"), hidden: Iterable[str] = HIDDEN) -> None:
        self._etc = etc
        self._host = etc / _HOST
        self._hidden = tuple(hidden)
        self._written: dict[str, Callable[[Path], str]] = {
            "resolv.conf": lambda _: RESOLV_CONF,
            "nsswitch.conf": lambda path: nsswitch(_text(path)),
        }
        self._shown: dict[str, tuple[int, int, int]] = {}

    def build(self, stage: Path) -> None:
        """Mount it; once in a mount namespace.

        :param stage: an existing directory, of which nothing is changed in the end. What is bound
            with all that is mounted below would bring our tmpfs along, were it there already.
        """
        linux.mount("ntm-etc", str(stage), "tmpfs", _FLAGS, "mode=0755,size=16m")
        (stage / _HOST).mkdir()
        bind(str(self._etc), str(stage / _HOST))
        linux.mount(str(stage), str(self._etc), "none", linux.MS_MOVE)
        self.refresh()

    def refresh(self) -> None:
        """Show entries that are new or have become another, and hide caches that are new."""
        present = {entry.name: entry for entry in os.scandir(self._host)}
        for name in [name for name in self._shown if name not in present]:
            self._remove(name)
        for name in self._written:
            self._write(name)
        for name, entry in present.items():
            if name in self._written or name == _HOST:
                continue
            found = entry.stat(follow_symlinks=False)
            identity = (stat.S_IFMT(found.st_mode), found.st_dev, found.st_ino)
            shown = self._shown.get(name)
            if shown is None or (shown != identity and not _both_files(shown, identity)):
                self._remove(name)
                self._show(entry)
                self._shown[name] = identity
        for directory in self._hidden:
            _hide(directory)

    def _show(self, entry: os.DirEntry[str]) -> None:
        at = self._etc / entry.name
        if entry.is_symlink():
            at.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            at.mkdir()
            bind(entry.path, str(at))
        else:
            at.symlink_to(os.path.join(_HOST, entry.name))

    def _remove(self, name: str) -> None:
        if self._shown.pop(name, None) is None:
            return
        at = self._etc / name
        if at.is_symlink():
            at.unlink()
        else:
            linux.unmount(str(at))
            at.rmdir()

    def _write(self, name: str) -> None:
        text = self._written[name](self._host / name)
        at = self._etc / name
        if not at.exists() or at.read_text(encoding="utf-8", errors="replace") != text:
            at.write_text(text, encoding="utf-8", errors="replace")
            at.chmod(0o644)


def bind(source: str, target: str) -> None:
    """Show ``source`` with all that is mounted below it at ``target`` too."""
    linux.mount(source, target, "none", linux.MS_BIND | linux.MS_REC)


def _both_files(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """A link to a file stays right when another file takes the name."""
    return stat.S_ISREG(one[0]) and stat.S_ISREG(other[0])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _hide(directory: str) -> None:
    """Cover a directory that has something in it."""
    try:
        if os.listdir(directory):
            linux.mount("ntm-hidden", directory, "tmpfs", _FLAGS, "mode=0755,size=4k")
    except OSError:
        return  # there is none, or it may not be entered anyway
