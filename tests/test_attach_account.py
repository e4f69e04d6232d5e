"""When the tests run as root: the same as an account that is nobody special."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.attachments import ROOT, environment

#: An account of no name, which owns nothing.
ACCOUNT = 48271

MODULES = (
    "tests.test_attach_netns",
    "tests.test_attach_enter",
    "tests.test_attach_etc",
    "tests.test_attach_tun",
    "tests.test_attach_fd",
)


def as_account(directory: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program as that account, with the modules that this interpreter finds."""
    become = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"]
    # setpriv itself may start what the account may not; a shell that it has started may not.
    honest = ["sh", "-c", 'exec "$0" "$@"']
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    return subprocess.run(
        [*become, *honest, *argv],
        cwd=directory,
        env={
            "PATH": environment()["PATH"],
            "HOME": directory,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )


def python_for_account(directory: str) -> str | None:
    """Find an interpreter that the account may run, of our version, with what the tests import."""
    same = f"python{sysconfig.get_python_version()}"
    named = filter(None, [os.environ.get("NTM_ORDINARY_PYTHON")])
    for python in (*named, sys.executable, f"/usr/bin/{same}", f"/usr/local/bin/{same}"):
        done = as_account(directory, python, "-c", "import ntmobile.plugins, twisted.trial, attrs")
        if done.returncode == 0:
            return python
    return None


class OrdinaryAccountTests(SynchronousTestCase):
    """Without root, all of it works too."""

    timeout = 120

    def test_all(self) -> None:
        """The tests of the attachments pass as an account without any privilege."""
        if os.getuid() != 0:
            raise self.skipTest("these tests run as an ordinary account already")
        if shutil.which("setpriv") is None:
            raise self.skipTest("the command setpriv (Debian package util-linux) is missing")
        directory = tempfile.mkdtemp(prefix="ntm-account-")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        os.chown(directory, ACCOUNT, ACCOUNT)
        python = python_for_account(directory)
        if python is None:
            raise self.skipTest("no Python that another account may run has what the tests import")
        trial = [python, "-m", "twisted.trial", f"--temp-directory={Path(directory) / 'trial'}"]
        done = as_account(directory, *trial, *MODULES)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertNotIn("skips=", done.stdout)
