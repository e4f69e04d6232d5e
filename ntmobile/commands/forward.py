"""``ntm forward``: a TCP port into or out of the virtual network, for programs outside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.python.failure import Failure

from ntmobile.client.endpoints import NTMClientEndpoint, NTMServerEndpoint
from ntmobile.commands.ports import (
    LOOPBACK,
    listen,
    parse_local,
    parse_port,
    ready_agent,
    run_until_interrupted,
)
from ntmobile.commands.state import state_option
from ntmobile.errors import InvalidName, Unreachable
from ntmobile.protocols.splicing import ForwardingFactory, Spliced, SplicedFactory
from ntmobile.wire import names


@click.command()
@state_option()
@click.option("--listen", "inward", is_flag=True, help="Forward from the virtual network.")
@click.argument("source")
@click.argument("target")
def forward(state: Path, inward: bool, source: str, target: str) -> None:
    """Forward TCP connections from SOURCE to TARGET, until Ctrl-C.

    \b
    ntm forward 8080 phone.alice.dc1.ntm.example:80
        Port 8080 of this machine (of 127.0.0.1, unless SOURCE is HOST:PORT)
        leads to port 80 of a correspondent.
    \b
    ntm forward --listen 2222 localhost:22
        Port 2222 of this device in the virtual network leads to port 22 of
        this machine, for correspondents that this device lets in.
    """  # noqa: D301  # click wants the character
    if inward:
        port, (host, local) = parse_port(source, source), parse_local(target, "localhost")
        run_until_interrupted(lambda reactor: _inward(reactor, state, port, host, local))
    else:
        where, (name, far) = parse_local(source, LOOPBACK), parse_target(target)
        run_until_interrupted(lambda reactor: _outward(reactor, state, where, name, far))


def parse_target(text: str) -> tuple[str, int]:
    """``NAME:PORT`` of a device or user. :raises NTMobileError: it is none."""
    name, colon, port = text.rpartition(":")
    if not colon:
        raise InvalidName(f"{text}: write NAME:PORT, such as phone.alice.dc1.ntm.example:80")
    return names.check_domain(name.rstrip(".").lower()), parse_port(port, text)


async def _outward(reactor: Any, state: Path, where: tuple[str, int], name: str, port: int) -> str:
    await ready_agent(reactor, state)

    def connect() -> Deferred[Spliced]:
        return NTMClientEndpoint(reactor, state, name, port).connect(SplicedFactory())

    factory = ForwardingFactory(connect, lambda problem: _say(problem))
    return f"{_shown(*listen(reactor, where, factory))} leads to {name} port {port}"


async def _inward(reactor: Any, state: Path, port: int, host: str, local: int) -> str:
    await ready_agent(reactor, state)

    def connect() -> Deferred[Spliced]:
        endpoint = HostnameEndpoint(reactor, host, local)
        connecting: Deferred[Any] = endpoint.connect(SplicedFactory())
        return connecting.addErrback(unreached)

    def unreached(failure: Failure) -> Failure:
        failure.trap(ConnectError, DNSLookupError)
        reason = failure.getErrorMessage().rstrip(".")
        return Failure(Unreachable(f"{_shown(host, local)}: {reason}"))

    factory = ForwardingFactory(connect, lambda problem: _say(problem))
    listening = await NTMServerEndpoint(reactor, state, port).listen(factory)
    taken: Any = listening.getHost()
    return f"port {taken.port} in the virtual network leads to {_shown(host, local)}"


def _say(problem: str) -> None:
    click.echo(f"no connection: {problem}", err=True)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
