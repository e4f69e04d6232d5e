"""The ``/etc`` inside, on a directory that stands for it, in namespaces of the test's own."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.plugins.netns.etc import nsswitch
from ntmobile.plugins.netns.mirror import mirror
from tests.attachments import Program, spawn
from tests.test_attach_netns import NetnsTestCase

#: Shows files as a program inside sees them; "refresh" and a name of a file are its commands.
_INSIDE = """
import os, sys
from pathlib import Path
from ntmobile.plugins.netns import namespaces
from ntmobile.plugins.netns.etc import NameServices
etc, stage, hidden = map(Path, sys.argv[1:])
namespaces.isolate()
names = NameServices(etc, [str(hidden), str(hidden.with_name("later"))])
names.build(stage)
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    command = line.strip()
    if command == "refresh":
        names.refresh()
        shown = ""
    elif command.endswith("/"):
        shown = " ".join(sorted(os.listdir(command)))
    else:
        path = etc / command
        shown = path.read_text().strip() if path.exists() else "(none)"
    print(f"{number}: {shown}", flush=True)
"""


class NameServiceTests(NetnsTestCase):
    """What programs see while the system changes its files."""

    async def start(self) -> None:
        self.base = Path(self.mktemp()).resolve()
        self.etc, self.hidden = self.base / "etc", self.base / "nscd"
        for directory in (self.etc, self.base / "stage", self.hidden, self.etc / "ssl"):
            directory.mkdir(parents=True)
        self.write("resolv.conf", "nameserver 192.0.2.1")
        self.write("nsswitch.conf", "passwd: files\nhosts: resolve [!UNAVAIL=return] dns")
        self.write("hosts", "old")
        self.write("ssl/cert", "old")
        (self.etc / "release").symlink_to("../release")
        (self.base / "release").write_text("one")
        (self.hidden / "socket").write_text("")
        places = [self.etc, self.base / "stage", self.hidden]
        self.program: Program = spawn([sys.executable, "-c", _INSIDE, *map(str, places)])
        self.addCleanup(self.finish)
        self.asked = 0
        await self.program.says("ready")

    async def finish(self) -> None:
        """End the program, whose errors fail the test."""
        assert self.program.transport is not None
        self.program.transport.closeStdin()
        done = await self.program.wait()
        self.assertEqual((0, ""), (done.status, done.errors))

    def write(self, name: str, text: str) -> None:
        """Put a file into the system's directory, by renaming it over the old one."""
        new = self.etc / f"{name}.new"
        new.write_text(text)
        new.rename(self.etc / name)

    async def ask(self, command: str) -> str:
        """Have the program inside do something; give what it shows."""
        self.program.write(f"{command}\n".encode())
        start = f"{self.asked}: "
        self.asked += 1
        await self.program.says(f"\n{start}")
        text = self.program.output.decode().rpartition(f"\n{start}")[2]
        while not text.endswith("\n"):
            await self.until(lambda: self.program.output.endswith(b"\n"), "the rest of the line")
            text = self.program.output.decode().rpartition(f"\n{start}")[2]
        return text.strip()

    async def test_rename(self) -> None:
        """A file renamed over resolv.conf changes nothing inside; other files are seen anew."""
        await self.start()
        self.assertEqual("nameserver 127.0.0.53", await self.ask("resolv.conf"))
        self.assertEqual("old", await self.ask("hosts"))
        self.write("resolv.conf", "nameserver 192.0.2.2")
        self.write("hosts", "new")
        self.write("ssl/cert", "new")
        self.assertEqual("nameserver 127.0.0.53", await self.ask("resolv.conf"))
        self.assertEqual("new", await self.ask("hosts"))
        self.assertEqual("new", await self.ask("ssl/cert"))
        self.assertEqual("nameserver 192.0.2.2", (self.etc / "resolv.conf").read_text())

    async def test_links(self) -> None:
        """A relative link leads where it does outside."""
        await self.start()
        self.assertEqual("one", await self.ask("release"))

    async def test_new_and_gone(self) -> None:
        """After a refresh, new entries are there and those that went are not."""
        await self.start()
        (self.etc / "new").mkdir()
        self.write("new/file", "new")
        self.write("another", "another")
        (self.etc / "hosts").unlink()
        (self.etc / "ssl" / "cert").unlink()
        (self.etc / "ssl").rmdir()
        await self.ask("refresh")
        self.assertEqual("new", await self.ask("new/file"))
        self.assertEqual("another", await self.ask("another"))
        self.assertEqual("(none)", await self.ask("hosts"))
        self.assertEqual("(none)", await self.ask("ssl/cert"))
        self.assertNotIn("ssl", (await self.ask(f"{self.etc}/")).split())

    async def test_ssh(self) -> None:
        """What ssh includes is there; where root is nobody it is the user's, else the real one."""
        await self.start()
        (self.etc / "ssh" / "ssh_config.d").mkdir(parents=True)
        self.write("ssh/ssh_config", "main")
        self.write("ssh/ssh_config.d/site.conf", "included")
        await self.ask("refresh")
        self.assertEqual("main", await self.ask("ssh/ssh_config"))
        self.assertEqual("included", await self.ask("ssh/ssh_config.d/site.conf"))
        (self.etc / "ssh" / "ssh_config.d" / "site.conf").write_text("changed")
        await self.ask("refresh")
        self.assertEqual("changed", await self.ask("ssh/ssh_config.d/site.conf"))

    async def test_hidden(self) -> None:
        """The socket of a name cache is not to be seen, also of one that starts later."""
        await self.start()
        self.assertEqual("", await self.ask(f"{self.hidden}/"))
        self.assertEqual(["socket"], os.listdir(self.hidden))
        later = self.hidden.with_name("later")
        later.mkdir()
        (later / "socket").write_text("")
        self.assertEqual("socket", await self.ask(f"{later}/"))
        await self.ask("refresh")
        self.assertEqual("", await self.ask(f"{later}/"))

    async def test_system_is_untouched(self) -> None:
        """Nothing of all this is written into the system's directory or left in the stage."""
        await self.start()
        await self.ask("refresh")
        names = {"resolv.conf", "nsswitch.conf", "hosts", "ssl", "release"}
        self.assertEqual(names, set(os.listdir(self.etc)))
        self.assertEqual([], os.listdir(self.base / "stage"))


class SwitchTests(SynchronousTestCase):
    """The text of ``nsswitch.conf``."""

    def test_only_hosts_change(self) -> None:
        """The line for hosts is replaced, all others stay."""
        real = "passwd: files systemd\n#hosts: none\nhosts:\tmymachines resolve files\nrpc: db\n"
        self.assertEqual(
            "passwd: files systemd\n#hosts: none\nrpc: db\nhosts: files dns\n", nsswitch(real)
        )

    def test_none(self) -> None:
        """A system without the file gets the line for hosts."""
        self.assertIn("hosts: files dns\n", nsswitch(""))


class MirrorTests(SynchronousTestCase):
    """Copies of what ssh would refuse."""

    def setUp(self) -> None:
        self.real = Path(self.mktemp()).resolve()
        self.shown = Path(self.mktemp()).resolve()
        (self.real / "conf.d").mkdir(parents=True)
        self.shown.mkdir()
        (self.real / "main").write_text("main")
        (self.real / "elsewhere").write_text("included")
        (self.real / "conf.d" / "own.conf").write_text("one")
        (self.real / "conf.d" / "link.conf").symlink_to(self.real / "elsewhere")

    def test_copies_and_links(self) -> None:
        """What matches is a copy, links followed; all else is a link to the real one."""
        mirror(self.real, self.shown, ("conf.d/*",))
        self.assertEqual(self.real / "main", (self.shown / "main").readlink())
        for name, text in (("own.conf", "one"), ("link.conf", "included")):
            copy = self.shown / "conf.d" / name
            self.assertTrue(stat.S_ISREG(copy.lstat().st_mode))
            self.assertEqual(text, copy.read_text())
            self.assertEqual(0o644, stat.S_IMODE(copy.stat().st_mode))

    def test_up_to_date(self) -> None:
        """Doing it again takes over changes."""
        mirror(self.real, self.shown, ("conf.d/*",))
        (self.real / "conf.d" / "own.conf").write_text("two")
        (self.real / "conf.d" / "new.conf").write_text("new")
        (self.real / "conf.d" / "link.conf").unlink()
        (self.real / "main").unlink()
        mirror(self.real, self.shown, ("conf.d/*",))
        self.assertEqual("two", (self.shown / "conf.d" / "own.conf").read_text())
        self.assertEqual({"own.conf", "new.conf"}, set(os.listdir(self.shown / "conf.d")))
        self.assertEqual({"conf.d", "elsewhere"}, set(os.listdir(self.shown)))

    def test_original_is_untouched(self) -> None:
        """Nothing of the real directory changes, whatever goes."""
        before = {path: path.lstat().st_mtime_ns for path in self.real.rglob("*")}
        mirror(self.real, self.shown, ("conf.d/*",))
        mirror(self.real, self.shown, ())
        self.assertEqual(before, {path: path.lstat().st_mtime_ns for path in self.real.rglob("*")})
