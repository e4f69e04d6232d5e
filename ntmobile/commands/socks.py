"""``ntm socks``: the virtual network as a SOCKS5 proxy, for programs that can use one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred

from ntmobile.client.endpoints import NTMClientEndpoint
from ntmobile.commands.ports import LOOPBACK, listen, ready_agent, run_until_interrupted
from ntmobile.commands.state import state_option
from ntmobile.protocols.socks import SocksFactory
from ntmobile.protocols.splicing import Spliced, SplicedFactory

#: The usual port of SOCKS.
PORT = 1080


@click.command()
@state_option()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port of 127.0.0.1 to listen on; 0 takes a free one.",
)
def socks(state: Path, port: int) -> None:
    """Offer the virtual network as a SOCKS5 proxy on this machine, until Ctrl-C.

    \b
    curl --proxy socks5h://127.0.0.1:1080 http://phone.alice.dc1.ntm.example/

    Names of the platform lead to their devices; other names and addresses are refused. Every user
    of this machine can use the proxy while it runs.
    """  # noqa: D301  # click wants the character
    run_until_interrupted(lambda reactor: _serve(reactor, state, port))


async def _serve(reactor: Any, state: Path, port: int) -> str:
    await ready_agent(reactor, state)

    def connect(host: str, to: int) -> Deferred[Spliced]:
        name = host.rstrip(".").lower()
        return NTMClientEndpoint(reactor, state, name, to).connect(SplicedFactory())

    def failed(where: str, problem: str) -> None:
        click.echo(f"refused {where}: {problem}", err=True)

    factory = SocksFactory(reactor, connect, failed)
    taken = listen(reactor, (LOOPBACK, port), factory)[1]
    return f"SOCKS5 proxy on {LOOPBACK} port {taken} (socks5h://{LOOPBACK}:{taken})"
