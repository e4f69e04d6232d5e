"""A cache server does what its OpenAPI document says, whatever it is sent (Schemathesis)."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from unittest import SkipTest

from hypothesis import HealthCheck, Phase, given, settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ntmobile.wire.http_digests import content_digest
from ntmobile.wire.http_signatures import Request, sign
from tests.caching import ALICE, Client, World, an_item, read_manifest
from tests.stored_data import Device

try:
    requests: Any = import_module("requests")
    schemathesis: Any = import_module("schemathesis")
    checks: Any = import_module("schemathesis.checks")
    openapi_checks: Any = import_module("schemathesis.specs.openapi.checks")
except ImportError:
    schemathesis = None

#: Requests for each operation.
EXAMPLES = 25


class SchemaTests(TestCase):
    """Generated requests, signed by a device, against a real port."""

    timeout = 120

    def setUp(self) -> None:
        if schemathesis is None:
            raise SkipTest("Schemathesis is not installed: pip install schemathesis")
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
        seen: Deferred[set[int]] = deferToThread(self.run_all, self.port.getHost().port)
        # Requests came through to what they are about.
        self.assertLess({200, 204, 400, 404}, await seen)

    def run_all(self, port: int) -> set[int]:
        """Ask everything that the document has; which statuses were answered."""
        base = f"http://127.0.0.1:{port}"
        document = requests.get(f"{base}/v1/openapi.json", timeout=10).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=base)
        session = requests.Session()
        session.auth = _Signing(self.world, self.client)
        seen: set[int] = set()
        for result in schema.get_all_operations():
            self.run_operation(result.ok(), session, seen)
        session.close()
        return seen

    def run_operation(self, operation: Any, session: Any, seen: set[int]) -> None:
        """Ask one thing, in many ways; now and then about an object that is there."""
        known = read_manifest(self.item).object.hex()
        asked: list[Any] = []

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            asked.append(case)
            if "object" in (case.path_parameters or {}) and len(asked) % 2:
                case.path_parameters |= {"object": known}
                if "part" in case.path_parameters and len(asked) % 4 == 1:
                    case.path_parameters |= {"part": 0}
            response = case.call(session=session, timeout=10)
            seen.add(response.status_code)
            case.validate_response(
                response,
                checks=[
                    checks.not_a_server_error,
                    openapi_checks.status_code_conformance,
                    openapi_checks.content_type_conformance,
                    openapi_checks.response_schema_conformance,
                    openapi_checks.response_headers_conformance,
                ],
            )

        ask()


class _Signing:
    """Signs requests as a device does (R28)."""

    def __init__(self, world: World, client: Client) -> None:
        self._world = world
        self._client = client

    def __call__(self, prepared: Any) -> Any:
        body = prepared.body or b""
        if isinstance(body, str):
            body = body.encode()
        prepared.body = body or None
        prepared.headers["Content-Length"] = str(len(body))
        fields = {}
        if body:
            fields = {"content-digest": [content_digest(body)]}
        target, _, query = prepared.path_url.partition("?")
        signature = sign(
            Request(prepared.method, target, query, "", fields),
            self._client.key,
            keyid=self._client.keyid,
            created=int(self._world.unix_time()),
            nonce=next(self._world._numbers).to_bytes(16, "big"),
        )
        prepared.headers.update({name: lines[0] for name, lines in fields.items()} | signature)
        return prepared
