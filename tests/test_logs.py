"""How services log."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import ntmobile
from ntmobile.errors import ConfigurationError
from ntmobile.protocols import trace
from ntmobile.protocols.logs import LogObserver, LogSettings, as_json, as_text

ROOT = Path(ntmobile.__file__).resolve().parent.parent


def settings(words: str = "", option: str | None = None) -> LogSettings:
    """What ``NTM_LOG`` and ``--log-format`` give."""
    return LogSettings.read(option, {"NTM_LOG": words})


class SettingsTests(SynchronousTestCase):
    """Words of the environment, and the option."""

    def test_default(self) -> None:
        """Text, from information upward, without the trace."""
        self.assertEqual(LogSettings("text", LogLevel.info, False), LogSettings.read(None, {}))

    def test_words(self) -> None:
        """Words may stand in any order, with commas or blanks."""
        expected = LogSettings("json", LogLevel.warn, True)
        for words in ("json,trace,warn", "warn trace json", " trace , json,warn,"):
            self.assertEqual(expected, settings(words))

    def test_option_wins(self) -> None:
        """``--log-format`` is stronger than the environment."""
        self.assertEqual("text", settings("json", "text").format)
        self.assertEqual("json", settings("text", "json").format)

    def test_debug_traces(self) -> None:
        """Who wants everything gets the trace too."""
        self.assertTrue(settings("debug").trace)

    def test_wrong(self) -> None:
        """A wrong word is named, with those that are known."""
        problem = self.assertRaises(ConfigurationError, settings, "jsn")
        self.assertIn("NTM_LOG: 'jsn' is none of text, json, debug", str(problem))
        problem = self.assertRaises(ConfigurationError, settings, "", "xml")
        self.assertIn("--log-format: 'xml'", str(problem))


class ObserverTests(SynchronousTestCase):
    """Which events are written, and how."""

    def written(self, words: str, *events: tuple[str, LogLevel, str]) -> list[str]:
        """The lines for events of namespace, level and text."""
        stream = io.StringIO()
        observer = settings(words).observer(stream)
        for namespace, level, text in events:
            Logger(namespace, observer=observer).emit(level, "{text}", text=text)
        return stream.getvalue().splitlines()

    def test_interface(self) -> None:
        """It is an observer of twisted.logger."""
        verifyObject(ILogObserver, LogObserver(io.StringIO(), LogSettings()))

    def test_terminal(self) -> None:
        """On a terminal a line has the time of day."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        Logger("a.relay", observer=settings().observer(stream)).info("on port 4331")
        self.assertRegex(stream.getvalue(), r"^\d\d:\d\d:\d\d\.\d\d\d relay: on port 4331\n$")

    def test_text(self) -> None:
        """A line has day and time, the component, and a level that is above information."""
        lines = self.written(
            "",
            ("ntmobile.servers.relay", LogLevel.info, "on port 4331"),
            ("ntmobile.client.registering.Registering", LogLevel.warn, "no login"),
            ("ntmobile.client.node", LogLevel.debug, "not for everybody"),
        )
        self.assertEqual(2, len(lines))
        self.assertRegex(lines[0], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d\d\d relay: on port 4331$")
        self.assertRegex(lines[1], r" Registering: WARN no login$")

    def test_noise(self) -> None:
        """Twisted's talk of factories is left out, its warnings are not; debug shows all."""
        events = (
            ("twisted.internet.protocol.Factory", LogLevel.info, "Starting factory"),
            ("twisted.web", LogLevel.warn, "a warning"),
        )
        self.assertEqual(1, len(self.written("", *events)))
        self.assertEqual(2, len(self.written("debug", *events)))

    def test_legacy(self) -> None:
        """Errors that twisted.python.log was told are kept, its messages are not."""
        stream = io.StringIO()
        observer = settings("").observer(stream)
        publisher = legacy.LogPublisher(publishPublisher=_publisher(observer))
        publisher.msg("Received SIGTERM, shutting down.")
        self.assertEqual("", stream.getvalue())

    def test_trace_only(self) -> None:
        """``trace`` adds the messages of the protocol, and no other debugging."""
        events = (
            (trace.NAMESPACE, LogLevel.debug, "a message"),
            ("ntmobile.client.node", LogLevel.debug, "something else"),
        )
        self.assertEqual([], self.written("", *events))
        [line] = self.written("trace", *events)
        self.assertIn("trace: DEBUG a message", line)

    def test_json(self) -> None:
        """JSON has all fields, and what is no JSON as text."""
        stream = io.StringIO()
        log = Logger("ntmobile.client.node", observer=settings("json").observer(stream))
        log.info("tunnel to {peer}", peer="phone.alice.dc1.ntm.example", path=Path("x"), count=3)
        found = json.loads(stream.getvalue())
        self.assertGreater(found.pop("time"), 1e9)
        expected = {
            "level": "info",
            "component": "ntmobile.client.node",
            "text": "tunnel to phone.alice.dc1.ntm.example",
            "peer": "phone.alice.dc1.ntm.example",
            "path": "x",
            "count": 3,
        }
        self.assertEqual(expected, found)

    def test_traceback(self) -> None:
        """A failure has its traceback, indented below the line or as a field."""
        event: dict[str, Any] = {
            "log_time": 1.0,
            "log_level": LogLevel.critical,
            "log_namespace": "ntmobile.x",
            "log_format": "it failed",
            "log_failure": _failure(),
        }
        first, *rest = as_text(event).splitlines()
        self.assertTrue(first.endswith("x: CRITICAL it failed"))
        self.assertIn("ZeroDivisionError", rest[-1])
        self.assertTrue(all(line.startswith("    ") for line in rest))
        self.assertIn("ZeroDivisionError", json.loads(as_json(event))["traceback"])

    def test_hostile_text(self) -> None:
        """What a peer says forges no line of the log, and commands no terminal."""
        lines = self.written(
            "", ("x", LogLevel.info, "no\n12:00:00.000 relay: all is well\x1b[2J\x9b")
        )
        self.assertEqual(
            ["no", "    12:00:00.000 relay: all is well?[2J?"], [lines[0][-2:], lines[1]]
        )

    def test_one_line(self) -> None:
        """A JSON event is one line, whatever its text holds."""
        [line] = self.written("json", ("x", LogLevel.info, "two\nlines"))
        self.assertEqual("two\nlines", json.loads(line)["text"])

    def test_full_disk(self) -> None:
        """A stream that cannot be written does not stop the program."""

        class Full(io.StringIO):
            def write(self, text: str) -> int:
                raise OSError(28, "No space left on device")

        Logger("x", observer=LogSettings().observer(Full())).info("lost")


def _publisher(observer: LogObserver) -> Any:
    from twisted.logger import LogPublisher

    return LogPublisher(observer)


def _failure() -> Failure:
    try:
        1 / 0  # noqa: B018  # it is what fails
    except ZeroDivisionError:
        return Failure()
    raise AssertionError


class TraceTests(SynchronousTestCase):
    """The trace of messages."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        events = self.events

        @implementer(ILogObserver)
        class Keeper:
            def __call__(self, event: LogEvent) -> None:
                events.append(event)

        self.patch(trace, "log", Logger(trace.NAMESPACE, observer=Keeper()))

    def test_off(self) -> None:
        """It is off until it is asked for, and then nothing is made."""
        self.patch(trace.switch, "on", False)
        trace.trace("Direction Request", "a", "b")
        trace.note("lookup", "found")
        self.assertEqual([], self.events)

    def test_message(self) -> None:
        """A message is traced by title and ends, never with its content (R6)."""
        from ntmobile.wire.messages.realtime import DirectionRequest

        self.patch(trace.switch, "on", True)
        message = DirectionRequest("laptop.bob.dc2.ntm.example", b"n" * 16, 1, b"s" * 64)
        trace.trace(message, "phone", "dc1")
        [event] = self.events
        self.assertEqual(
            ("Direction Request", "phone", "dc1"),
            (event["message"], event["sender"], event["receiver"]),
        )
        self.assertNotIn("nnnn", repr(event))
        self.assertNotIn("ssss", repr(event))


class ServiceTests(SynchronousTestCase):
    """Services under twistd."""

    def twistd(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one that cannot start."""
        program = "from twisted.scripts.twistd import run; run()"
        return subprocess.run(
            [sys.executable, "-c", program, "--nodaemon", "--pidfile=", *words],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_options(self) -> None:
        """Every service has ``--log-format``."""
        for plugin in ("ntm-as", "ntm-dc", "ntm-relay", "ntm-client"):
            done = self.twistd(plugin, "--help")
            self.assertIn("--log-format", done.stdout, plugin)

    def test_wrong_word(self) -> None:
        """A wrong word in the environment is one line, and the service does not start."""
        done = self.twistd("ntm-client", "--state", self.mktemp(), NTM_LOG="loud")
        self.assertEqual(1, done.returncode)
        self.assertTrue(done.stderr.startswith("ntm-client: NTM_LOG: 'loud' is none of"))
        self.assertEqual(1, len(done.stderr.splitlines()))
