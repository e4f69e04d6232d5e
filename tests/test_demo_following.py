"""The demo's reading of traces, and of its counting program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.demo.counting import Counting
from ntmobile.demo.following import HOLD, Event, Following
from ntmobile.demo.platform import MN
from ntmobile.demo.stage import readable, tail


def traced(time: float, **fields: str) -> str:
    """A line of a log with a message."""
    return json.dumps({"time": time, "level": "debug", "component": "ntmobile.trace", **fields})


class FollowingTests(SynchronousTestCase):
    """Events of several logs in one order."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.one, self.other = directory / "one", directory / "other"
        self.following = Following(lambda: {self.one: "dc1", self.other: "dc2"})

    def titles(self, now: float) -> list[str]:
        """What is given at a time."""
        return [event.message for event in self.following.take(now)]

    def test_order(self) -> None:
        """Events are given in the order of their times, whichever log they are in."""
        self.one.write_text(traced(1.0, message="A", sender="a", receiver="b") + "\n")
        with self.one.open("a") as log:
            log.write(traced(3.0, message="C", sender="a", receiver="b") + "\n")
        self.other.write_text(traced(2.0, message="B", sender="a", receiver="b") + "\n")
        self.assertEqual(["A", "B", "C"], self.titles(4.0))
        self.assertEqual([], self.titles(4.0))

    def test_held(self) -> None:
        """A fresh event waits, for an earlier one of another program may still be written."""
        self.one.write_text(traced(5.0, message="A", sender="a", receiver="b") + "\n")
        self.assertEqual([], self.titles(5.0 + HOLD / 2))
        self.other.write_text(traced(4.9, message="B", sender="a", receiver="b") + "\n")
        self.assertEqual(["B", "A"], self.titles(5.1 + HOLD))

    def test_half_a_line(self) -> None:
        """A line that is not yet whole is read when it is."""
        line = traced(1.0, message="A", sender="a", receiver="b")
        self.one.write_text(line[:30])
        self.assertEqual([], self.titles(9.0))
        with self.one.open("a") as log:
            log.write(line[30:] + "\n")
        self.assertEqual(["A"], self.titles(9.0))

    def test_steps(self) -> None:
        """A step is that of the log's owner, and has no receiver."""
        self.other.write_text(traced(1.0, note="lookup", detail="somewhere") + "\n")
        self.assertEqual([Event(1.0, "dc2", "", "lookup", "somewhere")], self.following.take(9.0))

    def test_other_lines(self) -> None:
        """Other lines of a log, and no JSON at all, are passed over."""
        lines = [
            json.dumps({"time": 1.0, "component": "x", "text": "about ntmobile.trace"}),
            "Traceback (most recent call last): ntmobile.trace",
            traced(1.0),
        ]
        self.one.write_text("\n".join(lines) + "\n")
        self.assertEqual([], self.titles(9.0))

    def test_added(self) -> None:
        """Events from elsewhere get their place among the others."""
        self.one.write_text(traced(2.0, message="B", sender="a", receiver="b") + "\n")
        self.following.add([Event(1.0, "a", "b", "A"), Event(3.0, "a", "b", "C")])
        self.assertEqual(["A", "B", "C"], self.titles(9.0))


class TailTests(SynchronousTestCase):
    """What of a log is shown with a failure."""

    def test_text(self) -> None:
        """JSON becomes its text, with the level if that is more than information."""
        plain = json.dumps({"component": "x", "level": "info", "text": "all is well"})
        grave = json.dumps({"component": "x", "level": "error", "text": "no", "traceback": "a\nb"})
        self.assertEqual(["  all is well", "  ERROR no", "  a", "  b"], tail([plain, grave]))

    def test_trace_is_left_out(self) -> None:
        """Messages of the trace, whole or cut, say nothing to who looks for a failure."""
        line = traced(1.0, message="A", sender="a", receiver="b")
        self.assertEqual(["", ""], [readable(line), readable(line[10:])])

    def test_bounded(self) -> None:
        """Only the last lines are shown."""
        self.assertEqual("  99", tail([str(n) for n in range(100)])[-1])
        self.assertLess(len(tail([str(n) for n in range(100)])), 20)


@define
class Output:
    """A program that has written something."""

    text: str = ""

    def output(self) -> str:
        """All of it."""
        return self.text


class CountingTests(SynchronousTestCase):
    """The counting program as the play sees it."""

    def setUp(self) -> None:
        self.server, self.client = Output(), Output("connected\n")
        programs: tuple[Any, Any] = (self.server, self.client)  # as much of them as is read
        self.counting = Counting(*programs)

    def test_pause(self) -> None:
        """A pause is told once, when it is over."""
        self.client.text += "1 10.000000\n2 10.010000\n3 10.1"
        self.assertEqual([], self.counting.read())
        self.client.text += "30000\n4 10.140000\n"
        self.assertEqual(
            [Event(10.13, MN, "", "goes on", "after a pause of 120 ms")], self.counting.read()
        )
        self.assertEqual([], self.counting.read())
        self.assertEqual((4, 10.14), (self.counting.answers, self.counting.last))

    def test_gap(self) -> None:
        """The longest pause counts that overlaps a time, also one that began before it."""
        self.client.text += "1 10.0\n2 10.5\n3 10.6\n4 12.0\n"
        self.counting.read()
        self.assertAlmostEqual(0.5, self.counting.gap(10.2, 10.55))
        self.assertAlmostEqual(1.4, self.counting.gap(10.2, 11.0))
        self.assertEqual(0.0, self.counting.gap(20.0, 21.0))

    def test_lost_and_order(self) -> None:
        """Missing numbers are lost ones, and a number that comes twice is no order."""
        self.client.text += "1 10.0\n2 10.1\n5 10.2\n"
        self.counting.read()
        self.assertEqual((2, True), (self.counting.lost, self.counting.in_order))
        self.client.text += "5 10.3\n"
        self.counting.read()
        self.assertFalse(self.counting.in_order)

    def test_connections(self) -> None:
        """What the server saw."""
        self.server.text = "ready\nconnection from fd00::1\nconnection closed\nconnection from ::\n"
        self.assertEqual(2, self.counting.connections)
