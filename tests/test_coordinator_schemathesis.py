"""The DC's HTTP API does what its OpenAPI document says, whatever it is sent (Schemathesis)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from hypothesis import HealthCheck, Phase, given, settings
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
from ntmobile.wire.http_digests import content_digest
from ntmobile.wire.http_keys import coordinator_key
from ntmobile.wire.http_signatures import HmacKey, Request, sign
from tests.test_exchange import CERTIFICATES, DC2, LAPTOP, NOW, PHONE, Side
from tests.test_store_waiting import an_entry

try:
    import requests
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks
except ImportError:  # pragma: no cover
    schemathesis = None  # type: ignore[assignment]  # the test is skipped then

#: Requests for each operation.
EXAMPLES = 25
#: Hash value under which a key and an entry wait.
KNOWN = (1).to_bytes(32, "big")
SESSION, KEY = bytes(range(8)), bytes(range(32))


class SchemaTests(TestCase):
    """Generated requests, signed by Bob's laptop, against a real port."""

    timeout = 120

    def setUp(self) -> None:
        if schemathesis is None:
            raise SkipTest("Schemathesis is not installed: pip install schemathesis")
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

    def test_conforms(self) -> Deferred[int]:
        """Statuses, types and documents of answers are those of the document, and none is 5xx."""
        running: Deferred[int] = deferToThread(self.run_all, self.port.getHost().port)
        return running.addCallback(self.assertEqual, 10)

    def run_all(self, port: int) -> int:
        """Ask everything that the document has; how much it was."""
        base = f"http://127.0.0.1:{port}"
        document = requests.get(f"{base}/v1/openapi.json", timeout=10).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=base)
        session = requests.Session()
        session.auth = Signing()
        count = 0
        found: Iterable[Any] = schema.get_all_operations()
        for result in found:
            self.run_operation(result.ok(), session)
            count += 1
        session.close()
        return count

    def run_operation(self, operation: Any, session: Any) -> None:
        """Ask one thing, in many ways; now and then about what is there."""

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            found = case.path_parameters or {}
            if operation.method.upper() == "GET" and "identifier" in found:
                found["identifier"] = KNOWN.hex()
            response = case.call(session=session, timeout=10)
            case.validate_response(
                response,
                checks=[
                    not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                    checks.response_headers_conformance,
                ],
            )

        ask()


class Signing:
    """Signs requests as a device does (R28)."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, prepared: Any) -> Any:
        body = prepared.body or b""
        if isinstance(body, str):
            body = body.encode()
        prepared.body = body or None
        prepared.headers["Content-Length"] = str(len(body))
        digest = {"content-digest": content_digest(body)} if body else {}
        path, _, query = prepared.path_url.partition("?")
        fields = {name: [value] for name, value in digest.items()}
        signature = sign(
            Request(prepared.method, path, query, "", fields),
            HmacKey(coordinator_key(KEY)),
            keyid=SESSION.hex(),
            created=int(NOW),
            nonce=next(self._numbers).to_bytes(16, "big"),
        )
        prepared.headers.update(digest | signature)
        return prepared
