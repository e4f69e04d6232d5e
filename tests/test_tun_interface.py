"""What a TUN interface is set to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ntmobile.plugins.tun_interface import run_size

ROOT = Path(__file__).resolve().parent.parent
_MAKE = """
import subprocess, sys
from ntmobile.plugins import linux
from ntmobile.plugins.tun_interface import TunInterface
device = linux.open_tun("t0")
TunInterface("t0").configure(["198.18.0.1/32"], [], int(sys.argv[1]))
print(subprocess.check_output(["ip", "-d", "link", "show", "t0"], text=True))
"""


class SegmentTests(SynchronousTestCase):
    """How much the kernel hands over at a time."""

    def test_one_run(self) -> None:
        """What TCP hands over at most, cut to the MTU, is one run of UDP at most."""
        for mtu in (1280, 1400, 1416, 1436, 8936):
            for headers in (40, 52, 60, 72):
                room = run_size(mtu) - 321  # the kernel's own headers (MAX_TCP_HEADER + 1)
                pieces = room // (mtu - headers)
                self.assertLessEqual(pieces * (mtu + 36), 65487)
                self.assertGreater(pieces * mtu, 50_000)

    def test_set(self) -> None:
        """The kernel is told so."""
        space = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", _MAKE]
        done = subprocess.run(
            [*space, "1416"], capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
        )
        if done.returncode:
            raise SkipTest(f"no TUN device can be made here: {done.stderr[-200:]}")
        self.assertIn("mtu 1416", done.stdout)
        self.assertIn(f"gso_max_size {run_size(1416)}", done.stdout)
