"""HTTP in memory: a transport that notes what is asked of it, and answers taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.testing import StringTransport

from ntmobile.testing.clock import ExactClock


class Transport(StringTransport):
    """Notes what is asked of it."""

    aborted = False
    paused = False

    def abortConnection(self) -> None:
        self.aborted = True

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


def answers(data: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """Take answers apart: status, headers with names in lower case, body."""
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        yield int(first.split()[1]), headers, data[:length]
        data = data[length:]


class NoThreads(ExactClock):
    """A reactor whose threads do at once what they are given."""

    def getThreadPool(self) -> NoThreads:
        return self

    def callInThreadWithCallback(
        self, report: Callable[[bool, Any], None], call: Callable[..., Any], *args: Any
    ) -> None:
        report(True, call(*args))

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)
