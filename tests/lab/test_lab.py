"""A lab's life: it needs no root, its programs are ordinary, and nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ntmobile.lab.internet import RESOLVER4
from ntmobile.lab.measure import TcpStream, iperf
from ntmobile.lab.node import remove_tree
from ntmobile.lab.supervision import ROOT, SEARCH_PATH, LabError, lab_unavailable
from ntmobile.testbed.standing import StandingLab
from tests.lab.case import LabTestCase


async def problem_of(work: Awaitable[object]) -> LabError:
    """Give the error that the lab reports of something that cannot work."""
    try:
        await work
    except LabError as problem:
        return problem
    raise AssertionError("no error")


class SetUpTests(LabTestCase):
    """Making labs."""

    async def test_fast(self) -> None:
        """The standing lab, of more than 15 hosts, is there within 3 seconds."""
        lab = self.new_lab()
        before = time.monotonic()
        await StandingLab.build(lab)
        self.assertGreater(len(lab.nodes), 15)
        self.assertLess(time.monotonic() - before, 3)

    async def test_two_labs(self) -> None:
        """Two labs have the same addresses and do not meet."""
        one, other = await self.standing_lab(), await StandingLab.build(self.new_lab())
        for standing, text in ((one, "one"), (other, "other")):
            await standing.host("dc1").run(["sh", "-c", f"echo {text} > ~/word"])
        for standing, text in ((one, "one"), (other, "other")):
            word = await standing.host("dc1").run(["cat", "word"])
            self.assertEqual(word.stdout, f"{text}\n")

    async def test_error_tells(self) -> None:
        """A set-up command that fails tells where, what and why."""
        standing = await self.standing_lab()
        problem = await problem_of(standing.host("dc1").ip("link set nonesuch up"))
        for part in ("dc1", "link set nonesuch up", "Cannot find device"):
            self.assertIn(part, str(problem))


class ProgramTests(LabTestCase):
    """Programs in hosts."""

    async def test_ordinary(self) -> None:
        """A program is not root, has no capability, and cannot change the network."""
        host = (await self.standing_lab()).host("home")
        self.assertNotEqual((await host.run(["id", "-u"])).stdout, "0\n")
        status = await host.run(["grep", "CapEff", "/proc/self/status"])
        self.assertEqual(int(status.stdout.split()[1], 16), 0)
        refused = await host.run(["ip", "link", "set", "eth0", "down"], check=False)
        self.assertNotEqual(refused.status, 0)

    async def test_own_tun(self) -> None:
        """A program can make a user and network namespace of its own, with a TUN device in it."""
        host = (await self.standing_lab()).host("home")
        for identity in (["--map-root-user"], ["--map-current-user", "--keep-caps"]):
            made = await host.run(
                ["unshare", *identity, "--net", "sh", "-ec", "ip tuntap add mode tun; ip -br link"]
            )
            self.assertIn("tun0", made.stdout)

    async def test_place(self) -> None:
        """A host has a name, a user, a home and name servers of its own."""
        host = (await self.standing_lab()).host("home")
        shown = await host.run(["sh", "-c", "hostname; whoami; pwd; echo ~; cat /etc/resolv.conf"])
        name, user, directory, home, *resolvers = shown.stdout.splitlines()
        self.assertEqual((name, user), ("home", "lab"))
        self.assertEqual((directory, home), (str(host.home), str(host.home)))
        self.assertEqual(resolvers[0], f"nameserver {RESOLVER4}")

    async def test_machine_files(self) -> None:
        """The machine's other files are to be seen, also those in /etc."""
        host = (await self.standing_lab()).host("home")
        names = (await host.run(["ls", "-A", "/etc"])).stdout.split()
        self.assertEqual(set(os.listdir("/etc")) - set(names), set())

    async def test_low_ports(self) -> None:
        """Programs of servers may serve low ports such as the DNS's, those of clients not."""
        standing = await self.standing_lab()
        # Not 53 itself, which the lab's own name server has.
        bind = [sys.executable, "-c", "import socket; socket.socket().bind(('', 54))"]
        await standing.host("dns").run(bind)
        refused = await standing.host("home").run(bind, check=False)
        self.assertIn("PermissionError", refused.stderr)

    async def test_same_python(self) -> None:
        """The interpreter of the tests finds the same packages in a host."""
        host = (await self.standing_lab()).host("dc1")
        code = "import sys, ntmobile; print(sys.prefix); print(ntmobile.__file__)"
        import ntmobile

        shown = await host.run([sys.executable, "-c", code])
        self.assertEqual(shown.stdout.splitlines(), [sys.prefix, ntmobile.__file__])

    async def test_log(self) -> None:
        """One can wait for what a program writes, on either stream."""
        host = (await self.standing_lab()).host("dc1")
        program = await host.spawn(["sh", "-c", "echo begun 7; sleep 0.1; echo odd >&2; sleep 99"])
        self.assertEqual((await program.wait_for(r"begun (\d+)"))[1], "7")
        await program.wait_for("^odd$")
        self.assertEqual(await program.status(), None)

    async def test_log_of_the_ended(self) -> None:
        """Waiting ends at once, with the log, when the program has ended without the word."""
        host = (await self.standing_lab()).host("dc1")
        program = await host.spawn(["sh", "-c", "echo sorry >&2; exit 3"])
        problem = await problem_of(program.wait_for("ready"))
        self.assertIn("ended with 3", str(problem))
        self.assertIn("sorry", str(problem))

    async def test_ends(self) -> None:
        """A program is stopped, also while suspended, or killed with what it has started."""
        host = (await self.standing_lab()).host("dc1")
        gentle = await host.spawn(["sh", "-c", "trap 'exit 5' TERM; echo on; sleep 9 & wait"])
        await gentle.wait_for("on")
        await gentle.signal(signal.SIGSTOP)
        self.assertEqual(await gentle.stop(), 5)
        stubborn = await host.spawn(["sh", "-c", "trap '' TERM; echo on; sleep 98.7; sleep 98.7"])
        await stubborn.wait_for("on")
        await problem_of(stubborn.stop(timeout=0.2))
        self.assertEqual(await stubborn.status(), -signal.SIGKILL)
        left = await host.run(["pgrep", "-f", "sleep 98.7"], check=False)
        self.assertEqual(left.stdout, "")

    async def test_unknown_program(self) -> None:
        """A program that does not exist is an error that names it."""
        host = (await self.standing_lab()).host("dc1")
        problem = await problem_of(host.run(["nonesuch"]))
        self.assertIn("dc1: nonesuch: ", str(problem))

    async def test_input(self) -> None:
        """A program reads what it is given, and nothing by default."""
        host = (await self.standing_lab()).host("dc1")
        self.assertEqual((await host.run(["cat"], input="word\n")).stdout, "word\n")
        self.assertEqual((await host.run(["cat"])).stdout, "")

    async def test_ended_after_test(self) -> None:
        """What a test has started is ended after it, what is standing not."""
        host = (await self.standing_lab()).host("dc1")
        program = await host.spawn(["sleep", "97.6"])
        standing = await host.spawn(["sleep", "97.6"], standing=True)
        self.addCleanup(standing.kill)
        await self.end_programs()
        self.assertEqual(await program.status(), -signal.SIGKILL)
        self.assertEqual(await standing.status(), None)

    async def test_failure_shows_logs(self) -> None:
        """The text of a failure has the last words of the programs."""
        host = (await self.standing_lab()).host("dc1")
        program = await host.spawn(["sh", "-c", "echo famous last words"])
        await program.exited()
        failure = self.with_logs(Failure(AssertionError("as intended")))
        self.assertIn("as intended", str(failure.value))
        self.assertIn("famous last words", str(failure.value))
        self.assertIs(failure.type, AssertionError)


class MeasureTests(LabTestCase):
    """Measurements that the tests of networks do not show already."""

    async def test_throughput(self) -> None:
        """iperf3 measures TCP both ways, and UDP at a rate."""
        standing = await self.standing_lab()
        client, server = standing.host("home"), standing.host("dc1")
        for reverse in (False, True):
            tcp = await iperf(client, server, server.ipv4, reverse=reverse)
            self.assertGreater(tcp.bits_per_second, 10e6)
        udp = await iperf(client, server, server.ipv4, udp_rate="5M")
        self.assertGreater(udp.bits_per_second, 4e6)
        self.assertLess(udp.lost, 0.1)

    async def test_broken_stream(self) -> None:
        """A TCP stream that is cut is not intact."""
        standing = await self.standing_lab()
        client, server = standing.host("global4"), standing.host("dc1")
        stream = await TcpStream.start(client, server, server.ipv4)
        await stream.receiver.kill()
        with contextlib.suppress(LabError):
            report = await stream.report()
            self.assertFalse(report.intact)


def processes_of(directory: str) -> list[str]:
    """Give the command lines of all processes of the machine that name a lab's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if directory in line:
                found.append(line)
    return found


class EndTests(LabTestCase):
    """Nothing is left of a lab."""

    async def test_closed(self) -> None:
        """Closing a lab ends its programs, also those that left their parents, and its files."""
        lab = self.new_lab()
        standing = await StandingLab.build(lab)
        marker = str(lab.directory)
        daemon = ["sh", "-c", f"setsid sh -c 'sleep 96; echo {marker}' & echo on"]
        await (await standing.host("dc1").spawn(daemon)).wait_for("on")
        self.assertEqual(len(processes_of(marker)) > 1, True)
        lab.close()
        self.assertEqual(processes_of(marker), [])
        self.assertFalse(lab.directory.exists())

    async def test_use_after_close(self) -> None:
        """A closed lab says that it is closed."""
        lab = self.new_lab()
        standing = await StandingLab.build(lab)
        lab.close()
        problem = await problem_of(standing.host("dc1").run(["true"]))
        self.assertIn("closed", str(problem))


def example(
    *arguments: str, prefix: list[str] | None = None, python: str = sys.executable, **more: str
) -> subprocess.Popen[str]:
    """Start the example lab in a process of its own."""
    return subprocess.Popen(
        [*(prefix or []), python, "-m", "tests.lab.example", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": SEARCH_PATH, "PYTHONDONTWRITEBYTECODE": "1", **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the example's end; give its report."""
    output, errors = process.communicate(timeout=60)
    if process.returncode != 0:
        raise AssertionError(f"exit status {process.returncode}\n{output}\n{errors}")
    report: dict[str, Any] = json.loads(output)
    return report


class AccountTests(SynchronousTestCase):
    """The lab under other conditions than those of this process."""

    def setUp(self) -> None:
        reason = lab_unavailable()
        if reason is not None:
            raise SkipTest(reason)

    def test_killed(self) -> None:
        """When the tests are killed, every program of the lab goes with them."""
        process = example("--wait")
        assert process.stdout is not None
        try:
            self.assertTrue(select.select([process.stdout], [], [], 30)[0])
            directory = json.loads(process.stdout.readline())["directory"]
            self.addCleanup(remove_tree, Path(directory))
            self.assertNotEqual(processes_of(directory), [])
        finally:
            process.kill()
            process.communicate()
        deadline = time.monotonic() + 10
        while processes_of(directory):
            self.assertLess(time.monotonic(), deadline, processes_of(directory))
            time.sleep(0.02)

    def test_ordinary_account(self) -> None:
        """An account without any privilege can run a lab."""
        if os.getuid() != 0:  # then every test here shows it
            report = report_of(example())
        else:
            account = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            python, path = python_for(account)
            report = report_of(
                example(prefix=account, python=python, PYTHONPATH=path, TMPDIR="/tmp")
            )
        self.assertEqual(report["capabilities"], 0)
        self.assertNotEqual(report["uid"], 0)
        self.assertGreater(report["report"]["received"], 10)

    def test_container(self) -> None:
        """Where /proc is masked, as in containers, a lab works without a pid namespace."""
        mask = 'mount --bind /dev/null /proc/timer_list && exec "$@"'
        prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", mask, "sh"]
        process = example(prefix=prefix)
        report = report_of(process)
        self.assertNotEqual(report["first_process"], Path(sys.executable).name)
        self.assertGreater(report["report"]["received"], 10)
        self.assertEqual(processes_of(report["directory"]), [])
        self.assertFalse(os.path.exists(report["directory"]))

    def test_forbidden(self) -> None:
        """Where user namespaces are forbidden, the reason says so."""
        code = "from ntmobile.lab.supervision import lab_unavailable; print(lab_unavailable())"
        forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
        done = subprocess.run(
            [
                *["unshare", "--user", "--map-root-user", "sh", "-ec"],
                forbid,
                "sh",
                sys.executable,
                "-c",
                code,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        self.assertIn("does not permit unprivileged network namespaces", done.stdout)
        self.assertIn("the limit user.max_user_namespaces is reached", done.stdout)


def python_for(account: list[str]) -> tuple[str, str]:
    """Find an interpreter that an account may run, with our packages: (path, PYTHONPATH)."""
    minor = f"python3.{sys.version_info.minor}"
    packages = [path for path in sys.path if path.endswith("site-packages")]
    for python in (sys.executable, shutil.which(minor, path="/usr/bin:/usr/local/bin")):
        if python is None:
            continue
        path = os.pathsep.join(packages)
        trial = subprocess.run(
            [*account, python, "-c", "import twisted.internet.reactor, attrs, tests.lab.example"],
            cwd=ROOT,
            env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=False,
        )
        if trial.returncode == 0:
            return python, path
    raise SkipTest("no interpreter with our packages is readable for an ordinary account")
