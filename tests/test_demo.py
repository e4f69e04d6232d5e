"""``ntm demo`` where namespaces are not allowed; with them it is in ``tests/lab/test_demo.py``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ntmobile.lab.supervision import lab_unavailable
from tests.demos import PATIENCE, ROOT, Demo, assert_stored

_POSSIBLE = """
from ntmobile.lab import namespaces
namespaces.enter_user_namespace()
open("/proc/sys/user/max_user_namespaces", "w").write("0")
"""


def can_forbid() -> bool:
    """Whether a test may make a namespace in which none can be made; else none can anyway."""
    tried = subprocess.run(
        [sys.executable, "-c", _POSSIBLE], cwd=ROOT, capture_output=True, timeout=30, check=False
    )
    return tried.returncode == 0


class LoopbackDemoTests(SynchronousTestCase):
    """The demo on a system without unprivileged namespaces."""

    def start(self, *options: str) -> Demo:
        """Start it; it is ended after the test."""
        forbid = can_forbid()
        if not forbid and lab_unavailable() is None:
            raise SkipTest("namespaces are allowed here, and a test cannot forbid them")
        demo = Demo(Path(self.mktemp()).resolve(), *options, forbidden=forbid)
        self.addCleanup(demo.process.communicate)
        self.addCleanup(demo.kill)
        return demo

    def test_whole(self) -> None:
        """It says so in a sentence, shows the same acts on loopback, and leaves nothing behind."""
        demo = self.start()
        done = demo.finish()
        self.assertEqual(0, done.status, done.output)
        self.assertIn("No NATs here, all is on loopback: ", done.output)
        self.assertNotIn("Traceback", done.output)
        for act in ("1. Two programs", "2. A program", "3. The phone", "4. Both", "Summary"):
            self.assertIn(f"\n{act}", done.output)
        for message in ("Registration Request", "Direction Request", "Tunnel Request"):
            self.assertIn(message, done.output)
        self.assertIn("DNS: dc2.ntm.example at 127.0.0.1", done.output)
        assert_stored(self, *re.split(r"\n(?=\d\. |Summary)", done.output)[5:7])
        self.assertIn("nothing reconnected", done.output)
        self.assertLessEqual(max(map(len, done.output.splitlines())), 80)
        self.assertLess(done.seconds, PATIENCE)
        self.assertEqual([], list(demo.directory.iterdir()))
        self.assertEqual([], demo.processes())

    def test_keep(self) -> None:
        """``--keep`` leaves files and logs, says where, and leaves no program."""
        demo = self.start("--keep")
        done = demo.finish()
        self.assertEqual(0, done.status, done.output)
        [kept] = demo.directory.iterdir()
        self.assertIn(str(kept), done.output.replace("\n", ""))
        self.assertTrue((kept / "realm" / "realm.toml").exists())
        self.assertEqual([], demo.processes())

    def test_interrupted(self) -> None:
        """Ctrl-C ends it at once, with the usual status, and nothing is left."""
        demo = self.start()
        demo.until("^2. ")
        self.assertTrue(demo.processes())
        done = demo.interrupt()
        self.assertEqual(130, done.status, done.output)
        self.assertEqual([], list(demo.directory.iterdir()))
        self.assertEqual([], demo.processes())

    def test_killed(self) -> None:
        """Its programs do not outlive it, even if it is killed."""
        demo = self.start()
        demo.until("^1. ")
        demo.kill()
        demo.process.wait(10)
        for _ in range(100):
            if not demo.processes():
                return
            subprocess.run(["sleep", "0.05"], check=True)
        self.fail(f"still there: {demo.processes()}")
