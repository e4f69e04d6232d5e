"""The OpenAPI document of a table of routes."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.protocols.http_openapi import OPENAPI_PATH, document, with_document
from ntmobile.protocols.http_routes import Answer, Call, Route, Table, number, octets
from ntmobile.wire import problems
from ntmobile.wire.messages.exchange import TokenAcknowledgement, TokenUpdate


async def nothing(call: Call) -> Answer:
    """Answer nothing."""
    return Answer(204)


TABLE = Table(
    [
        Route(
            "POST",
            "/v1/things/{id}",
            "Do it",
            "word",
            nothing,
            parameters=(octets("id", 2, "a thing"),),
            query=(number("after", 9, "a number"),),
            body=TokenUpdate,
            answer=TokenAcknowledgement,
            problems=(problems.CONFLICT,),
        ),
        Route("PUT", "/v1/things", "Put", "word", nothing, octets=5, status=204),
    ]
)


class DocumentTests(SynchronousTestCase):
    """What the document says."""

    def setUp(self) -> None:
        self.document: dict[str, Any] = document(TABLE, "Things", {"word": "the word"})

    def test_operation(self) -> None:
        """A route's parameters, body, answer and problems."""
        found = self.document["paths"]["/v1/things/{id}"]["post"]
        self.assertEqual(
            [(each["name"], each["in"], each["required"]) for each in found["parameters"]],
            [("id", "path", True), ("after", "query", False)],
        )
        self.assertEqual(found["parameters"][0]["schema"]["pattern"], "^[0-9a-f]{4}$")
        self.assertEqual(
            found["requestBody"]["content"]["application/json"]["schema"],
            {"$ref": "#/components/schemas/TokenUpdate"},
        )
        self.assertLess({"200", "400", "401", "404", "409", "413"}, set(found["responses"]))
        self.assertEqual(found["security"], [{"word": []}])

    def test_octets(self) -> None:
        """A body of octets, and an answer without a body."""
        found = self.document["paths"]["/v1/things"]["put"]
        self.assertEqual(list(found["requestBody"]["content"]), ["application/octet-stream"])
        self.assertNotIn("content", found["responses"]["204"])

    def test_schemas(self) -> None:
        """The structures, with patterns as JSON Schema has them."""
        schemas = self.document["components"]["schemas"]
        self.assertLess({"TokenUpdate", "Token", "ProblemDocument"}, set(schemas))
        self.assertEqual(schemas["Token"]["properties"]["fqdn"]["pattern"], "^[a-z0-9.-]+$")
        self.assertNotIn(":ivar", json.dumps(self.document))

    def test_served(self) -> None:
        """The document is a route of the table, and in the document."""
        table, access = with_document(TABLE, "Things", {"word": "the word"})
        route, _ = table.find("GET", OPENAPI_PATH)
        answer = self.successResultOf_(route)
        found = json.loads(answer.body)
        self.assertIn(OPENAPI_PATH, found["paths"])
        self.assertNotIn("security", found["paths"][OPENAPI_PATH]["get"])
        self.assertEqual(list(access), [route.access])

    def successResultOf_(self, route: Route) -> Answer:
        """What a route answers at once."""
        nothing: Any = None  # it looks at neither
        coroutine: Any = route.serve(Call(nothing, nothing))
        with self.assertRaises(StopIteration) as caught:
            coroutine.send(None)
        answer: Answer = caught.exception.value
        return answer
