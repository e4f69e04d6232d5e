"""How services log."""

from __future__ import annotations

import io
import re
from typing import Any

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.protocols.logs import LogSettings


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def logged(stream: io.StringIO, **fields: Any) -> str:
    """What an observer of that stream writes of one event."""
    event = {"log_time": 1.5e9, "log_level": LogLevel.warn, "log_namespace": "ntmobile.a.relay"}
    LogSettings().observer(stream)({**event, "log_format": "full: {count}", **fields})
    return stream.getvalue()


class LogObserverTests(SynchronousTestCase):
    """LogObserver."""

    def test_terminal(self) -> None:
        """On a terminal a line has the time, the part of the program, and the text."""
        text = logged(Terminal(), count=7)
        self.assertTrue(re.fullmatch(r"\d\d:\d\d:00\.000 relay: WARN full: 7\n", text), text)

    def test_file(self) -> None:
        """In a file it has the day too, for it is read days later."""
        text = logged(io.StringIO(), count=7)
        self.assertTrue(re.match(r"2017-07-1[345] \d\d:\d\d:00\.000 relay: WARN", text), text)
