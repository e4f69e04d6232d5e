"""The trace of what is asked over HTTP: the paper's messages, by their titles (figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import evolve

from ntmobile.protocols import trace
from ntmobile.protocols.http_routes import Answer, Call, Route, Table
from ntmobile.wire.codec import declaration_of


def traced(table: Table, server: str) -> Table:
    """The same routes, whose requests and answers are traced.

    A request without a document, such as a download, has the title of its answer.

    :param server: name of who serves them.
    """
    return Table([evolve(route, serve=_traced(route, server)) for route in table.routes])


def _traced(route: Route, server: str) -> Callable[[Call], Awaitable[Answer]]:
    asked, answered = _titles(route)

    async def serve(call: Call) -> Answer:
        if not trace.switch.on or not asked:
            return await route.serve(call)
        caller = _name(call.caller)
        trace.trace(asked, caller, server)
        answer = await route.serve(call)
        if answered:
            trace.trace(answered, server, caller)
        return answer

    return serve


def _titles(route: Route) -> tuple[str, str]:
    """Of request and answer; empty where neither is a message of the protocol."""
    answered = "" if route.answer is None else declaration_of(route.answer).title
    asked = answered.replace(" Response", " Request")
    if route.body is not None:
        asked = declaration_of(route.body).title
    return asked, answered


def _name(caller: Any) -> str:
    """Who asks: a device, or, where that is nobody in particular, the account server."""
    return caller if isinstance(caller, str) else getattr(caller, "fqdn", "AS")
