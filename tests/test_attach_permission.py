"""What the user is told where namespaces or TUN devices are forbidden."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.errors import NotPermittedHere, NTMobileError
from ntmobile.plugins.netns import spawn
from ntmobile.plugins.netns.permission import explain
from tests.attachments import PATIENCE, environment, netns_unavailable

#: In a user namespace, forbid what an administrator may; then start the process.
_FORBID_NAMESPACES = "echo 0 > /proc/sys/user/max_user_namespaces; exec "
_HIDE_TUN = "mount -t tmpfs none /dev/net; exec "


class ExplanationTests(SynchronousTestCase):
    """One line, with the cause and the alternative."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())

    def explain(self, problem: OSError, **settings: str) -> str:
        """Explain a failure on a system with these settings (``/`` as ``__``)."""
        for name, value in settings.items():
            path = self.root / "proc/sys" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        text = explain(problem, "a namespace", self.root)
        self.assertNotIn("\n", text)
        self.assertTrue(text.startswith("a namespace is not permitted here: "))
        self.assertIn('attachment.plugin = "tun"', text)
        self.assertIn('"datagram"', text)
        return text

    def test_settings(self) -> None:
        """A setting that forbids is named."""
        refused = OSError(errno.EPERM, "unshare: Operation not permitted")
        for name, value in (
            ("user__max_user_namespaces", "0"),
            ("kernel__unprivileged_userns_clone", "0"),
            ("kernel__apparmor_restrict_unprivileged_userns", "1"),
        ):
            shutil.rmtree(self.root, ignore_errors=True)
            said = self.explain(refused, **{name: value})
            self.assertIn(f"{name.replace('__', '.')} is {value}", said)

    def test_harmless_settings(self) -> None:
        """Settings that permit are not blamed."""
        said = self.explain(
            OSError(errno.EPERM, "unshare: Operation not permitted"),
            user__max_user_namespaces="1000",
            kernel__unprivileged_userns_clone="1",
            kernel__apparmor_restrict_unprivileged_userns="0",
        )
        self.assertIn("unshare: Operation not permitted (a container", said)

    def test_tun(self) -> None:
        """The device is blamed where it was the device, whatever the settings are."""
        missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "/dev/net/tun")
        said = self.explain(missing, user__max_user_namespaces="0")
        self.assertIn("there is no /dev/net/tun", said)
        locked = PermissionError(errno.EACCES, "Permission denied", "/dev/net/tun")
        self.assertIn("/dev/net/tun cannot be opened", self.explain(locked))

    def test_mount(self) -> None:
        """What could not be mounted is named."""
        said = self.explain(OSError(errno.EPERM, "mount: Operation not permitted", "/etc"))
        self.assertIn("mount: Operation not permitted: /etc (a container", said)


class RefusalTests(TestCase):
    """The process itself, where the system forbids something."""

    def setUp(self) -> None:
        reason = netns_unavailable()
        if reason is not None:
            self.skipTest(reason)

    def helper(self, first: str) -> dict[str, str]:
        """Start it in a namespace in which some shell commands have run; give what it says."""
        state = Path(self.mktemp()).resolve()
        state.mkdir()
        command = f'{first} "$0" -m ntmobile.plugins.netns.helper "$1"'
        done = subprocess.run(
            ["unshare", "-Urm", "sh", "-c", command, sys.executable, str(state)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(1, done.returncode, done)
        self.assertEqual([], os.listdir(state))
        said = json.loads(done.stdout)
        self.assertIsInstance(said, dict)
        return dict(said)

    def test_no_namespaces(self) -> None:
        """``user.max_user_namespaces`` of 0 is named, and nothing is left behind."""
        self.assertIn("user.max_user_namespaces is 0", self.helper(_FORBID_NAMESPACES)["refused"])

    def test_no_tun(self) -> None:
        """A missing ``/dev/net/tun`` is named, and nothing is left behind."""
        self.assertIn("there is no /dev/net/tun", self.helper(_HIDE_TUN)["refused"])

    async def test_agent_is_told(self) -> None:
        """What the process says reaches the agent as the error it is."""
        for says, kind in (
            ('{"refused": "not here"}', NotPermittedHere),
            ('{"error": "disk full"}', NTMobileError),
            ("", NTMobileError),
            ("[]", NTMobileError),
        ):
            self.patch(spawn, "_COMMAND", ("-c", f"import sys; print({says!r}); sys.exit(1)"))
            state = Path(self.mktemp())
            with self.assertRaises(kind) as caught:
                await spawn.start(reactor, state)
            self.assertIs(kind, type(caught.exception))
