"""``ntm demo`` with real NATs, as a newcomer sees it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ntmobile.lab.supervision import lab_unavailable
from tests.demos import PATIENCE, Demo, assert_stored, find_processes


class DemoTests(SynchronousTestCase):
    """The demo in network namespaces."""

    def setUp(self) -> None:
        reason = lab_unavailable()
        if reason is not None:
            raise SkipTest(reason)

    def start(self, *options: str) -> Demo:
        """Start it; it is ended after the test."""
        demo = Demo(Path(self.mktemp()).resolve(), *options)
        self.addCleanup(demo.process.communicate)
        self.addCleanup(demo.kill)
        return demo

    def test_whole(self) -> None:
        """All acts of the paper's figures in under a minute, and nothing is left behind.

        The first tunnel is direct, those after the moves go through the relay, and the one
        connection goes on. Then data is sent to the laptop while it is off.
        """
        demo = self.start()
        done = demo.finish()
        self.assertEqual(0, done.status, done.output)
        acts = re.split(r"\n(?=\d\. |Summary)", done.output)
        self.assertEqual(8, len(acts), done.output)
        _, up, contact, phone, both, off, on, summary = acts
        self.assertIn("Registration Request", up)
        figure = [
            "Direction Request",
            "DNS: dc2.ntm.example at 192.0.2.12",
            "NTM Information Request",
            "Relay Direction",
            "Route Direction: go direct",
            "Tunnel Request: handshake",
            "Tunnel Response: keys",
            "tunnel up: direct to 198.51.100.10",
        ]
        places = [contact.index(words) for words in figure]
        self.assertEqual(sorted(places), places, contact)
        # CN is behind a NAT, MN is not: so CN sends the Tunnel Request.
        self.assertRegex(contact, r"\|<-{30}\|  Tunnel Request")
        for act in (phone, both):
            # That it leaves its network is seen only where the new one is not there at once.
            self.assertIn("new address: ", act)
            self.assertIn("Route Direction: use the relay", act)
            self.assertIn("now: through rs1.dc1.ntm.example", act)
        assert_stored(self, off, on)
        self.assertRegex(summary, r"stored data +2  items, 5 MB, sent while the laptop was off")
        self.assertRegex(summary, r"connections +1  nothing reconnected")
        self.assertIn("in order, none lost", summary)
        self.assertLessEqual(max(map(len, done.output.splitlines())), 80)
        self.assertNotIn("\x1b", done.output)
        self.assertLess(done.seconds, PATIENCE)
        self.assertEqual([], list(demo.directory.iterdir()))
        self.assertEqual([], demo.processes())

    def test_interrupted(self) -> None:
        """Ctrl-C in the middle of it leaves nothing."""
        demo = self.start()
        demo.until("^3. ")
        done = demo.interrupt()
        self.assertEqual(130, done.status, done.output)
        self.assertEqual([], list(demo.directory.iterdir()))
        self.assertEqual([], demo.processes())

    def test_server_dies(self) -> None:
        """Where a server ends, the demo fails, and shows the last words of that server."""
        demo = self.start()
        demo.until("^2. ")
        mark = str(demo.directory).encode()
        [victim] = find_processes(lambda line: mark in line and b"relays/rs1.toml" in line)
        os.kill(victim, signal.SIGTERM)
        done = demo.finish()
        self.assertEqual(1, done.status, done.output)
        self.assertIn("The demo failed: ", done.output)
        self.assertIn("rs1 ended, with status ", done.output)
        self.assertIn("relay server rs1.dc1.ntm.example on UDP port 4331", done.output)
        self.assertEqual([], list(demo.directory.iterdir()))
