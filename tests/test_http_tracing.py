"""The trace of requests over HTTP."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.protocols import trace
from ntmobile.protocols.http_routes import Answer, Call, Route, Table
from ntmobile.protocols.http_tracing import traced
from ntmobile.wire.messages.exchange import (
    TemporalKeyListDownloadResponse,
    TemporalKeyUploadRequest,
    TemporalKeyUploadResponse,
)

DC, PHONE = "dc1.ntm.example", "phone.alice.dc1.ntm.example"


class TraceTests(SynchronousTestCase):
    """Routes with and without documents."""

    def setUp(self) -> None:
        self.found: list[tuple[str, str, str]] = []

        def noted(message: str, sender: str, receiver: str) -> None:
            self.found.append((sender, receiver, message))

        self.patch(trace.switch, "on", True)
        self.patch(trace, "trace", noted)

    def asked(self, **route: Any) -> list[tuple[str, str, str]]:
        """What is traced where a route is asked."""

        async def serve(call: Call) -> Answer:
            return Answer(204)

        made = Route("POST", "/x", "", "anybody", serve, **route)
        (found,) = traced(Table([made]), DC).routes
        head: Any = None
        self.successResultOf(Deferred.fromCoroutine(_served(found, Call(head, PHONE))))
        return self.found

    def test_document(self) -> None:
        """A request with a document is traced by its title, and so is the answer."""
        found = self.asked(body=TemporalKeyUploadRequest, answer=TemporalKeyUploadResponse)
        titles = ("Temporal Key Upload Request", "Temporal Key Upload Response")
        self.assertEqual(found, [(PHONE, DC, titles[0]), (DC, PHONE, titles[1])])

    def test_download(self) -> None:
        """A request without one has the title of its answer."""
        found = self.asked(answer=TemporalKeyListDownloadResponse)
        self.assertEqual(found[0], (PHONE, DC, "Temporal Key List Download Request"))

    def test_neither(self) -> None:
        """What is no message of the protocol is not traced; nothing is where the trace is off."""
        self.assertEqual(self.asked(), [])
        trace.switch.on = False
        self.assertEqual(self.asked(answer=TemporalKeyListDownloadResponse), [])


async def _served(route: Route, call: Call) -> Answer:
    return await route.serve(call)
