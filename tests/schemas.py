"""What an HTTP interface answers, held against its own OpenAPI document (Schemathesis)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final
from unittest import SkipTest

from attrs import define
from hypothesis import HealthCheck, Phase, given, settings

from ntmobile.wire.http_digests import content_digest
from ntmobile.wire.http_signatures import HmacKey, Request, sign

#: Requests for each operation.
EXAMPLES: Final = 25
#: What is checked of each answer that is no server's error.
CONFORMANCE: Final = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


@define
class Signing:
    """Signs requests as a device does (R28).

    :ivar time: the server's, in unix seconds.
    """

    key: HmacKey
    keyid: str
    time: Callable[[], float]
    _number: int = 1 << 64

    def __call__(self, prepared: Any) -> Any:
        """Sign a prepared request; it is given back."""
        body = prepared.body or b""
        if isinstance(body, str):
            body = body.encode()
        prepared.body = body or None
        prepared.headers["Content-Length"] = str(len(body))
        digest = {"content-digest": content_digest(body)} if body else {}
        path, _, query = prepared.path_url.partition("?")
        fields = {name: [value] for name, value in digest.items()}
        self._number += 1
        signature = sign(
            Request(prepared.method, path, query, "", fields),
            self.key,
            keyid=self.keyid,
            created=int(self.time()),
            nonce=self._number.to_bytes(16, "big"),
        )
        prepared.headers.update(digest | signature)
        return prepared


def ask_everything(
    port: int, sign: Callable[[Any], Any], prepare: Callable[[Any], None]
) -> tuple[int, set[int]]:
    """Ask all that the document of a server on this machine has, each in many ways.

    Blocks: to be called in a thread.

    :param sign: signs a prepared request, and gives it back. :param prepare: has a case now and
        then ask about what is there.
    :return: how many operations there are, and which statuses were answered.
    :raises SkipTest: Schemathesis is not installed.
    """
    try:
        requests, schemathesis = import_module("requests"), import_module("schemathesis")
    except ImportError as problem:
        raise SkipTest(f"pip install schemathesis: {problem}") from None
    checked = [import_module("schemathesis.checks").not_a_server_error]
    openapi = import_module("schemathesis.specs.openapi.checks")
    checked += [getattr(openapi, name) for name in CONFORMANCE]
    base = f"http://127.0.0.1:{port}"
    document = requests.get(f"{base}/v1/openapi.json", timeout=10).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=base)
    seen: set[int] = set()
    with requests.Session() as session:
        session.auth = sign

        def run(operation: Any) -> None:
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                prepare(case)
                response = case.call(session=session, timeout=10)
                seen.add(response.status_code)
                case.validate_response(response, checks=checked)

            ask()

        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:
            run(operation)
    return len(operations), seen
