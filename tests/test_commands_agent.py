"""The commands about a running agent: what they print, their exit statuses, and bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ntmobile.client.agent import Agent
from ntmobile.client.control import call
from tests.agents import (
    ALICE,
    LAPTOP,
    PHONE,
    AgentTestCase,
    AnyAgentTestCase,
    Ran,
    Running,
    ntm,
    state_of,
)

NOBODY = "nobody.bob.dc2.ntm.example"
UNKNOWN = f"nobody is called {NOBODY}, or not for you to reach"
#: What needs an agent, with valid words.
COMMANDS = (
    ["status"],
    ["status", "--json"],
    ["peers"],
    ["ping", LAPTOP],
    ["why", LAPTOP],
    ["netcheck"],
    ["down"],
)


class CommandTestCase(AgentTestCase):
    """What these tests share."""

    async def ask(self, agent: Agent, command: str, *words: str) -> Ran:
        """Run a command about a device; nothing that it prints is wider than a terminal."""
        ran = await ntm(command, "--state", state_of(agent), *words)
        for line in ran.output.splitlines() if "--json" not in words else ():
            self.assertLessEqual(len(line), 80, line)
        self.assertNotIn("Traceback", ran.errors)
        return ran

    async def ask_json(self, agent: Agent, command: str, *words: str) -> Any:
        """The same with ``--json``."""
        ran = await self.ask(agent, command, "--json", *words)
        self.assertEqual("", ran.errors)
        return json.loads(ran.output)


class ReportTests(CommandTestCase):
    """``status``, ``peers``, ``ping``, ``why`` and ``netcheck`` with a correspondent."""

    async def test_before(self) -> None:
        """A device without tunnels."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        ran = await self.ask(phone, "status")
        certificate = phone.node.certificate
        lines = ran.output.splitlines()
        self.assertEqual(PHONE, lines[0])
        self.assertIn("  state     registered", lines)
        self.assertIn(f"  virtual   {certificate.ipv6}, {certificate.ipv4}", lines)
        self.assertIn("  programs  the virtual network is open", lines)
        self.assertRegex(ran.output, r"\n  IPv4      seen as 127\.0\.0\.1:\d+, no NAT\n")
        self.assertEqual(["", "no tunnels"], lines[-2:])
        self.assertEqual("no tunnels\n", (await self.ask(phone, "peers")).output)
        self.assertEqual([], await self.ask_json(phone, "peers"))

    async def test_with_a_tunnel(self) -> None:
        """Each shows the tunnel, for people and, with the fields of the design, for programs."""
        _, phone, _ = await self.pair()
        ran = await self.ask(phone, "ping", LAPTOP.upper() + ".", "-c", "2", "-i", "0.01")
        self.assertEqual(0, ran.status, ran.errors)
        self.assertRegex(
            ran.output,
            rf"^{LAPTOP}: tunnel in [\d.]+ ms\n"
            r"1: [\d.]+ ms  direct 127\.0\.0\.1:\d+\n"
            r"2: [\d.]+ ms  direct 127\.0\.0\.1:\d+\n"
            r"2 sent, 2 answered; least [\d.]+, median [\d.]+, most [\d.]+ ms\n$",
        )
        line = r"  direct 127\.0\.0\.1:\d+, [\d.]+ ms, up \d+ s, 0 B received, 0 B sent\n$"
        self.assertRegex((await self.ask(phone, "peers")).output, f"^{LAPTOP}\n{line}")
        self.assertRegex((await self.ask(phone, "status")).output, f"\n\n{LAPTOP}\n{line}")
        status = await self.ask_json(phone, "status")
        self.assertEqual((PHONE, True), (status["fqdn"], status["registered"]))
        self.assertEqual({"ipv4", "ipv6"}, set(status["virtual"]))
        self.assertIn("addresses", status["network"])
        [tunnel] = status["tunnels"]
        fields = {"peer", "path", "remote", "rtt_ms", "handovers", "rx_bytes", "tx_bytes"}
        self.assertEqual(set(), {*fields, "established"} - set(tunnel))
        self.assertEqual(
            (LAPTOP, "direct", 0), tuple(tunnel[f] for f in ("peer", "path", "handovers"))
        )
        [peer] = await self.ask_json(phone, "peers")
        self.assertEqual(LAPTOP, peer["peer"])
        pings = await self.ask_json(phone, "ping", LAPTOP, "-c", "2", "-i", "0.01")
        self.assertEqual((LAPTOP, 2, 2), (pings["peer"], pings["sent"], pings["answered"]))

    async def test_why(self) -> None:
        """What was decided, each path with what became of it, and the one that is used."""
        _, phone, _ = await self.pair()
        ran = await self.ask(phone, "why", LAPTOP)
        self.assertEqual((0, ""), (ran.status, ran.errors))
        self.assertIn("the coordinator decided: both global: direct\n", ran.output)
        self.assertRegex(
            ran.output,
            r"\n\* direct 127\.0\.0\.1:\d+: works, (?:[\d.]+ ms, )?carries the traffic\n",
        )
        found = await self.ask_json(phone, "why", LAPTOP)
        self.assertEqual((LAPTOP, ""), (found["peer"], found["problem"]))
        self.assertEqual([True], [path["active"] for path in found["paths"] if path["active"]])

    async def test_why_not(self) -> None:
        """Where there is no tunnel, it says why once, and exits with 1, as JSON too."""
        _, phone, _ = await self.pair()
        ran = await self.ask(phone, "why", NOBODY)
        self.assertEqual((1, f"no tunnel: {UNKNOWN}\n", ""), (ran.status, ran.output, ran.errors))
        ran = await self.ask(phone, "why", "--json", NOBODY)
        self.assertEqual((1, UNKNOWN), (ran.status, json.loads(ran.output)["problem"]))

    async def test_netcheck(self) -> None:
        """The network as machine and DC see it."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        ran = await self.ask(phone, "netcheck")
        self.assertEqual(0, ran.status)
        self.assertRegex(ran.output, r"\nIPv4 +seen as 127\.0\.0\.1:\d+, not translated\n")
        self.assertRegex(ran.output, r"\nIPv6 +the coordinator does not see this device in it\n")
        self.assertRegex(ran.output, r"\nUDP +the coordinator answers \(127\.0\.0\.1:\d+\)\n")
        found = await self.ask_json(phone, "netcheck")
        self.assertIn("receives by", found["datagrams"])
        self.assertEqual(found["overruns"], 0)
        self.assertEqual((True, False), (found["udp"], found["nat"]))


class WrongTests(CommandTestCase):
    """Names that lead nowhere, and agents that end."""

    async def test_wrong_names(self) -> None:
        """Each wrong name is one line that says what is wrong with it, and status 1."""
        _, phone, _ = await self.pair()
        cases = {
            NOBODY: UNKNOWN,
            PHONE: f"{PHONE} is this device itself",
            "bogus": "bogus is not the name of another device",
        }
        for name, text in cases.items():
            ran = await self.ask(phone, "ping", name, "-c", "1")
            self.assertEqual((1, "", f"Error: {text}\n"), (ran.status, ran.output, ran.errors))
        for name in ("example.org", "x_y.alice.dc1.ntm.example", "a b", "é.alice.dc1.ntm.example"):
            ran = await self.ask(phone, "ping", name, "-c", "1")
            self.assertEqual((1, 1), (ran.status, ran.errors.count("\n")), ran.errors)
            self.assertTrue(ran.errors.startswith("Error: "))

    async def test_wrong_options(self) -> None:
        """Click's own words, and its status 2."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        for words in (["ping"], ["ping", LAPTOP, "-c", "0"], ["ping", LAPTOP, "-i", "x"], ["why"]):
            self.assertEqual(2, (await self.ask(phone, *words)).status, words)

    async def test_two_agents(self) -> None:
        """A second agent of one state directory is refused."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        ran = await ntm("up", "--state", state_of(phone))
        said = f"Error: an agent is running already for {state_of(phone)}; see ntm status\n"
        self.assertEqual((1, said), (ran.status, ran.errors))

    async def test_logout_beside_an_agent(self) -> None:
        """A device does not give up its identity under its running agent."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        ran = await self.ask(phone, "logout")
        self.assertEqual(1, ran.status)
        self.assertIn("the agent is running; end it first: ntm down", ran.errors)
        self.assertTrue((state_of(phone) / "device.pem").exists())

    async def test_agent_ends(self) -> None:
        """A ping whose agent goes away ends with one line."""
        _, phone, _ = await self.pair()
        pinging = self.ask(phone, "ping", LAPTOP, "-i", "0.05")

        async def end() -> None:
            await self.eventually(lambda: bool(phone.node.correspondence.tunnels), "it pings")
            await self.end_agent(phone)

        ending = Deferred.fromCoroutine(end())
        ran = await pinging
        await ending
        self.assertEqual((1, 1), (ran.status, ran.errors.count("\n")), ran.errors)
        self.assertTrue(ran.errors.startswith("Error: "), ran.errors)


class ExecTests(CommandTestCase):
    """``ntm exec``: what comes through, and the exit statuses."""

    async def test_statuses(self) -> None:
        """The program's own, 126 and 127 as a shell has them, 125 for what we could not do."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        cases: dict[tuple[str, ...], int] = {
            ("true",): 0,
            ("sh", "-c", "exit 7"): 7,
            ("sh", "-c", "kill -TERM $$"): -signal.SIGTERM,
            ("no-such-program",): 127,
            ("/etc",): 126,
        }
        for argv, status in cases.items():
            ran = await self.ask(phone, "exec", "--", *argv)
            self.assertEqual(status, ran.status, (argv, ran))
            if status in (126, 127):
                self.assertTrue(ran.errors.startswith(f"ntm exec: {argv[0]}: "), ran.errors)
        self.assertEqual(2, (await self.ask(phone, "exec")).status)
        nowhere = await ntm("exec", "--state", self.mktemp(), "--", "true")
        self.assertEqual(125, nowhere.status)
        self.assertTrue(nowhere.errors.startswith("ntm exec: "))
        self.assertEqual(1, nowhere.errors.count("\n"))

    async def test_passed_through(self) -> None:
        """Arguments, options of the program included, come through as they are."""
        platform = await self.platform()
        phone = await self.agent(platform, ALICE, "phone")
        words = ("-c", 'printf "%s|" "$0" "$@"; echo err >&2', "a b", "--state", "*", "")
        ran = await self.ask(phone, "exec", "--", "sh", *words)
        self.assertEqual(("a b|--state|*||", "err\n", 0), (ran.output, ran.errors, ran.status))

    async def test_names(self) -> None:
        """A name brings the tunnel up; one that nobody has is not found."""
        _, phone, laptop = await self.pair()
        ran = await self.ask(phone, "exec", "--", "getent", "ahostsv6", LAPTOP)
        self.assertIn(str(laptop.node.certificate.ipv6), ran.output)
        self.assertIsNotNone(phone.node.correspondence.find(LAPTOP))
        ran = await self.ask(phone, "exec", "--", "getent", "ahostsv6", NOBODY)
        self.assertEqual(2, ran.status)


class LifeTests(AnyAgentTestCase):
    """``ntm up`` and ``ntm down``."""

    async def started(self) -> Path:
        """The state directory of an agent that ``ntm up`` started; without a virtual network."""
        platform = await self.platform()
        state = await platform.enroll(ALICE, "phone")
        with (state / "node.toml").open("a") as file:
            file.write('[attachment]\nplugin = "datagram"\n')
        ran = await ntm("up", "--state", state)
        self.assertEqual((0, ""), (ran.status, ran.errors), ran)
        self.assertRegex(ran.output, rf"^{PHONE} is up: fd[0-9a-f:]+, 198\.[0-9.]+\n$")
        self.addCleanup(ntm, "down", "--state", state)
        return state

    async def test_up_and_down(self) -> None:
        """The agent is there after ``up``, in the background, and gone after ``down``."""
        state = await self.started()
        status = await ntm("status", "--state", state)
        self.assertIn("registered", status.output)
        self.assertTrue((state / "agent.log").read_text("utf-8"))
        self.assertEqual(0o600, (state / "agent.sock").stat().st_mode & 0o777)
        ran = await ntm("down", "--state", state)
        self.assertEqual(0, ran.status, ran.errors)
        gone = await ntm("status", "--state", state)
        self.assertEqual(1, gone.status)

    async def test_killed(self) -> None:
        """After an agent was killed, commands say that none runs, and it starts anew."""
        state = await self.started()
        [pid] = [
            int(entry)
            for entry in os.listdir("/proc")
            if entry.isdigit() and f"--state={state}".encode() in _cmdline(entry)
        ]
        os.kill(pid, signal.SIGKILL)
        await self.eventually(lambda: not _cmdline(str(pid)), "the agent is gone")
        ran = await ntm("peers", "--state", state)
        self.assertEqual(1, ran.status)
        self.assertTrue(ran.errors.startswith(f"Error: no agent is running for {state}; "))
        ran = await ntm("up", "--state", state)
        self.assertEqual(0, ran.status, ran.errors)

    async def test_foreground(self) -> None:
        """In the foreground the log is readable lines, without Twisted's own, until Ctrl-C."""
        platform = await self.platform()
        state = await platform.enroll(ALICE, "phone")
        with (state / "node.toml").open("a") as file:
            file.write('[attachment]\nplugin = "datagram"\n')
        agent = Running("up", "--foreground", "--state", state)
        self.addCleanup(agent.end)
        await agent.says(r"^[0-9-]+ [0-9:.]+ agent: no resolver inside: ")
        await agent.says(r"^[0-9-]+ [0-9:.]+ agent: the virtual network is open$")
        await agent.says(r"registering: registered; the coordinator sees us at 127\.0\.0\.1 ")
        status, rest = await agent.interrupt()
        self.assertEqual(-signal.SIGINT, status, rest)
        for noise in ("Starting", "reactor", "Main loop", "Traceback"):
            self.assertNotIn(noise, rest)

    async def test_stopped_log(self) -> None:
        """A wrong setting is told by ``up``, not only by the log."""
        state = await self.started()
        await ntm("down", "--state", state)
        with (state / "node.toml").open("a") as file:
            file.write("[nonsense]\n")
        ran = await ntm("up", "--state", state)
        self.assertEqual(1, ran.status)
        self.assertIn("nonsense", ran.errors)
        self.assertEqual(1, ran.errors.count("\n"), ran.errors)


def _cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class NoAgentTests(TestCase):
    """Without an agent."""

    async def test_not_running(self) -> None:
        """Every command says how to start it, in one line, with status 1."""
        state = Path(self.mktemp())
        state.mkdir()
        (state / "node.toml").touch()
        for command, *words in COMMANDS:
            ran = await ntm(command, "--state", state, *words)
            said = (
                f"Error: no agent is running for {state}; start it with: ntm up --state {state}\n"
            )
            self.assertEqual((1, "", said), (ran.status, ran.output, ran.errors), command)

    async def test_no_directory(self) -> None:
        """Where a mistyped directory is not there, nobody is told to start an agent in it."""
        state = Path(self.mktemp())
        said = f"Error: {state} is not there; check --state, or see ntm enroll\n"
        for command, *words in (*COMMANDS, ["up"]):
            ran = await ntm(command, "--state", state, *words)
            self.assertEqual((1, "", said), (ran.status, ran.output, ran.errors), command)

    async def test_no_directory_for_programs(self) -> None:
        """Nor to start one for a program."""
        state = Path(self.mktemp())
        ran = await ntm("exec", "--state", state, "--", "true")
        said = f"ntm exec: {state} is not there; check --state, or see ntm enroll\n"
        self.assertEqual((125, "", said), (ran.status, ran.output, ran.errors))

    async def test_file(self) -> None:
        """Nor where a file is in that place."""
        state = Path(self.mktemp())
        state.touch()
        ran = await ntm("status", "--state", state)
        said = f"Error: {state} is no directory; check --state, or see ntm enroll\n"
        self.assertEqual((1, "", said), (ran.status, ran.output, ran.errors))

    async def test_up_before_enroll(self) -> None:
        """Without a device every command points to ``enroll``."""
        state = Path(self.mktemp())
        state.mkdir()
        said = f"Error: {state}: no device is enrolled here; see ntm enroll\n"
        for command, *words in (*COMMANDS, ["up"]):
            ran = await ntm(command, "--state", state, *words)
            self.assertEqual((1, said), (ran.status, ran.errors), command)

    async def test_not_answering(self) -> None:
        """An agent that hangs is not waited for forever."""
        # Short, since sun_path holds 108 bytes and a tree of tests may be deep.
        state = Path(tempfile.mkdtemp(prefix="ntm-"))
        self.addCleanup(shutil.rmtree, state, ignore_errors=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(state / "agent.sock"))
            listening.listen()
            problem = await deferToThread(_refusal, state)
        self.assertIn("did not answer within 0.2 s", problem)


def _refusal(state: Path) -> str:
    try:
        call(state, "status", 0.2)
    except Exception as problem:
        return str(problem)
    return ""
