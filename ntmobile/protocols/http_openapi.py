"""The OpenAPI document of a table of routes, made of the routes and the message structures.

The structures are the source: names, bounds and forms are theirs (``msgspec.json``), so that what
the document says and what the server takes cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ntmobile import __version__
from ntmobile.protocols.http_routes import (
    JSON_TYPE,
    OCTETS_TYPE,
    Access,
    Answer,
    Call,
    Head,
    Parameter,
    Route,
    Table,
)
from ntmobile.wire import problems
from ntmobile.wire.problems import PROBLEM_TYPE, Kind, ProblemDocument

#: Where the document is served.
OPENAPI_PATH: Final = "/v1/openapi.json"
#: Name of the access of everybody.
OPEN: Final = "open"
_SCHEMAS: Final = "#/components/schemas/"
#: Reasons that HTTP has for statuses that are successes.
_SUCCESS: Final = {200: "What was asked for", 204: "Done", 206: "The range that was asked for"}


def anybody(head: Head) -> None:
    """The access of everybody."""


def with_document(
    table: Table, title: str, access: Mapping[str, str]
) -> tuple[Table, dict[str, Access]]:
    """Add the route of the document, which everybody may ask for, to a table.

    :param access: name in the routes → a line on how one is known there.
    :return: the table, and the access of the new route.
    """

    async def serve(call: Call) -> Answer:
        return Answer(body=body, media=JSON_TYPE)

    route = Route("GET", OPENAPI_PATH, "This document", OPEN, serve, media=JSON_TYPE)
    whole = Table([*table.routes, route])
    body = msgspec.json.encode(document(whole, title, access))
    return whole, {OPEN: anybody}


def document(table: Table, title: str, access: Mapping[str, str]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a table."""
    kinds: list[Any] = [ProblemDocument]
    paths: dict[str, dict[str, Any]] = {}
    for route in table.routes:
        kinds += [kind for kind in (route.body, route.answer) if kind is not None]
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, access)
    _, schemas = msgspec.json.schema_components(
        dict.fromkeys(kinds), ref_template=_SCHEMAS + "{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {name: _plain(schema) for name, schema in schemas.items()},
            "securitySchemes": {
                name: {"type": "apiKey", "in": "header", "name": "Signature", "description": line}
                for name, line in access.items()
            },
        },
    }


def _operation(route: Route, access: Mapping[str, str]) -> dict[str, Any]:
    words = re.findall(r"[a-z]+", route.path.partition("/v1/")[2])
    found: dict[str, Any] = {
        "summary": route.summary,
        "operationId": "_".join([route.method.lower(), *words]),
        "responses": _responses(route),
    }
    parameters = [_parameter("path", each) for each in route.parameters]
    parameters += [_parameter("query", each) for each in route.query]
    if parameters:
        found["parameters"] = parameters
    if route.access in access:
        found["security"] = [{route.access: []}]
    if route.limit:
        found["requestBody"] = {"required": True, "content": _content(route.body, OCTETS_TYPE)}
    return found


def _parameter(where: str, parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": where,
        "required": where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _content(kind: Any, otherwise: str) -> dict[str, Any]:
    if kind is None:
        return {otherwise: {} if otherwise == OCTETS_TYPE else {"schema": {"type": "object"}}}
    return {JSON_TYPE: {"schema": {"$ref": _SCHEMAS + kind.__name__}}}


def _responses(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in (route.status, *route.statuses):
        found[str(status)] = {"description": _SUCCESS.get(status, "Done")}
        if status != 204:
            found[str(status)]["content"] = _content(route.answer, route.media or OCTETS_TYPE)
    content = {PROBLEM_TYPE: {"schema": {"$ref": _SCHEMAS + ProblemDocument.__name__}}}
    for kind in sorted(kinds_of(route), key=lambda kind: kind.status):
        found[str(kind.status)] = {"description": kind.title, "content": content}
    return found


def kinds_of(route: Route) -> set[Kind]:
    """The kinds of problems that a request of a route may be answered with."""
    found = {problems.MALFORMED, problems.LENGTH, problems.LARGE, problems.FAILED, *route.problems}
    if route.access != OPEN:
        found |= {problems.UNAUTHENTICATED, problems.BUSY, problems.UNAVAILABLE}
    if route.parameters:
        found.add(problems.UNKNOWN)
    if route.limit:
        found |= {problems.MEDIA, problems.CONTENT, problems.SLOW}
    return found


def _plain(schema: Any) -> Any:
    """A schema with patterns as JSON Schema has them, and descriptions of one paragraph."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _plain(value) for key, value in schema.items()}
    if isinstance(found.get("pattern"), str):
        found["pattern"] = found["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
    if isinstance(found.get("description"), str):
        found["description"] = " ".join(found["description"].partition("\n\n")[0].split())
    return found
