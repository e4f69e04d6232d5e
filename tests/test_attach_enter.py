"""Entering the virtual network: what passes through, and what cannot be run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.attachments import LEFT, Place
from tests.test_attach_netns import NetnsTestCase


class EnterTests(NetnsTestCase):
    """A program inside is as it would be outside, but for the network."""

    async def inside(self) -> Place:
        place = self.place(LEFT)
        await place.open()
        return place

    async def test_exit_status(self) -> None:
        """The exit status is the program's."""
        place = await self.inside()
        self.assertEqual(7, (await place.run("sh", "-c", "exit 7")).status)

    async def test_signals(self) -> None:
        """A signal to the process reaches the program, which ends by it."""
        place = await self.inside()
        program = place.spawn("sh", "-c", "echo ready; exec sleep 60")
        await program.says("ready")
        program.signal("TERM")
        self.assertEqual(-15, (await program.wait()).status)

    async def test_broken_pipe_ends_it(self) -> None:
        """SIGPIPE is not ignored, as it would be in a child of Python's."""
        place = await self.inside()
        done = await place.run("sh", "-c", "grep SigIgn /proc/self/status")
        ignored = int(done.output.split()[1], 16)
        self.assertEqual(0, ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1))

    async def test_streams(self) -> None:
        """Standard input, output and error are those of the caller."""
        place = await self.inside()
        program = place.spawn("sh", "-c", "tr a-z A-Z; echo oops >&2")
        program.write(b"hello\n")
        assert program.transport is not None
        program.transport.closeStdin()
        done = await program.wait()
        self.assertEqual(("HELLO\n", "oops\n"), (done.output, done.errors))

    async def test_directory_and_environment(self) -> None:
        """Working directory and environment stay."""
        place = await self.inside()
        here = Path(self.mktemp()).resolve()
        here.mkdir()
        done = await place.run("sh", "-c", 'pwd; echo "$COLOUR"', cwd=here, COLOUR="teal")
        self.assertEqual(f"{here}\nteal\n", done.output)

    async def test_identity(self) -> None:
        """The program is the same user and group."""
        place = await self.inside()
        done = await place.run("sh", "-c", "id -u; id -g")
        self.assertEqual([str(os.getuid()), str(os.getgid())], done.output.split())

    async def test_capabilities(self) -> None:
        """An ordinary user's program has none; root's has them only in its own namespaces."""
        place = await self.inside()
        done = await place.run("sh", "-c", "grep CapEff /proc/self/status; ip link set lo mtu 9000")
        if os.getuid() == 0:
            self.assertEqual(0, done.status, done)
        else:
            self.assertIn("CapEff:\t0000000000000000", done.output)
            self.assertIn("not permitted", done.errors)

    async def test_missing_command(self) -> None:
        """A command that is not there gives 127 and one line."""
        place = await self.inside()
        done = await place.run("no-such-command-anywhere")
        self.assertEqual(127, done.status)
        self.assertEqual("no-such-command-anywhere: command not found\n", done.errors)

    async def test_not_executable(self) -> None:
        """A file that cannot be run gives 126 and one line."""
        place = await self.inside()
        script = Path(self.mktemp()).resolve()
        script.write_text("no program")
        done = await place.run(str(script))
        self.assertEqual(126, done.status)
        self.assertEqual(f"{script}: cannot be run: Permission denied\n", done.errors)

    async def test_within(self) -> None:
        """Entering where one is already works."""
        place = await self.inside()
        again = (
            "from ntmobile.plugins.netns.enter import enter; from pathlib import Path;"
            f"enter(Path({str(place.state)!r}), ['echo', 'deep'])"
        )
        done = await place.run(sys.executable, "-c", again)
        self.assertEqual("deep\n", done.output, done)
