"""The DC's HTTP API does what its OpenAPI document says, whatever it is sent (Schemathesis)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ntmobile.interfaces import KnownDevice, WaitingKey
from ntmobile.protocols.http_openapi import with_document
from ntmobile.protocols.http_server import HttpApi
from ntmobile.servers.caches import Caches
from ntmobile.servers.coordinator_web import LINES, CoordinatorWeb
from ntmobile.servers.prekeys import PreKeys
from ntmobile.wire.http_keys import coordinator_key
from ntmobile.wire.http_signatures import HmacKey
from tests.schemas import Signing, ask_everything
from tests.test_exchange import CERTIFICATES, DC2, LAPTOP, NOW, PHONE, Side
from tests.test_store_waiting import an_entry

#: Hash value under which a key and an entry wait.
KNOWN = (1).to_bytes(32, "big")
SESSION, KEY = bytes(range(8)), bytes(range(32))


class SchemaTests(TestCase):
    """Generated requests, signed by Bob's laptop, against a real port."""

    timeout = 120

    def setUp(self) -> None:
        side = Side(Path(self.mktemp()) / "waiting.sqlite")
        self.addCleanup(side.store.close)
        side.log_in()
        laptop = CERTIFICATES[LAPTOP]
        side.store.note([KnownDevice(LAPTOP, laptop.der, laptop.identity, ("*",))], [])
        waiting = WaitingKey(LAPTOP, PHONE, "mail", KNOWN, bytes(32), NOW + 99)
        side.store.keep_keys([waiting], 9, 9)
        side.store.keep_entry([LAPTOP], an_entry(1), 9, 9)
        web = CoordinatorWeb(
            side.exchange,
            PreKeys(side.exchange),
            Caches(DC2),
            lambda index: (LAPTOP, KEY) if index == SESSION else None,
            CERTIFICATES.__getitem__,
            lambda: True,
            lambda: NOW,
            side.clock,
        )
        table, everybody = with_document(web.table(), "Coordinator", LINES)
        # mypy takes the reactor for a module.
        real: Any = reactor
        api = HttpApi(table, {**web.access(), **everybody}, real)
        self.port = real.listenTCP(0, api, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.addCleanup(api.close)

    async def test_conforms(self) -> None:
        """Statuses, types and documents of answers are those of the document, and none is 5xx."""
        signing = Signing(HmacKey(coordinator_key(KEY)), SESSION.hex(), lambda: NOW)
        asked: Deferred[tuple[int, set[int]]] = deferToThread(
            ask_everything, self.port.getHost().port, signing, self.prepare
        )
        operations, _ = await asked
        self.assertEqual(operations, 10)

    def prepare(self, case: Any) -> None:
        """Ask about what is there, where something is read."""
        found = case.path_parameters or {}
        if case.method.upper() == "GET" and "identifier" in found:
            found["identifier"] = KNOWN.hex()
