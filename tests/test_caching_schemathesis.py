"""A cache server does what its OpenAPI document says, whatever it is sent (Schemathesis)."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.caching import ALICE, World, an_item, read_manifest
from tests.schemas import Signing, ask_everything
from tests.stored_data import Device


class SchemaTests(TestCase):
    """Generated requests, signed by a device, against a real port."""

    timeout = 120

    def setUp(self) -> None:
        self.asked = 0
        self.world = World()
        self.client = self.world.client(ALICE)
        self.item = an_item(Device.create(ALICE))
        self.world.upload(self.client, self.item)
        # mypy takes the reactor for a module.
        real: Any = reactor
        api = self.world.cache.api(real)
        self.port = real.listenTCP(0, api, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.addCleanup(api.close)

    async def test_conforms(self) -> None:
        """Statuses, types and documents of answers are those of the document, and none is 5xx."""
        signing = Signing(self.client.key, self.client.keyid, self.world.unix_time)
        asked: Deferred[tuple[int, set[int]]] = deferToThread(
            ask_everything, self.port.getHost().port, signing, self.prepare
        )
        # Requests came through to what they are about.
        _, seen = await asked
        self.assertLess({200, 204, 400, 404}, seen)

    def prepare(self, case: Any) -> None:
        """Ask every other time about the object that is there."""
        self.asked += 1
        if "object" in (case.path_parameters or {}) and self.asked % 2:
            case.path_parameters |= {"object": read_manifest(self.item).object.hex()}
            if "part" in case.path_parameters and self.asked % 4 == 1:
                case.path_parameters |= {"part": 0}
