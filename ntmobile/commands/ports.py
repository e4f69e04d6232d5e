"""What ``ntm forward`` and ``ntm socks`` share: their arguments, and life until Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory

from ntmobile.client.endpoints import ask_agent
from ntmobile.commands.running import run
from ntmobile.errors import ConfigurationError, NotPermittedHere

#: Where programs of this machine alone connect to.
LOOPBACK = "127.0.0.1"


def parse_port(text: str, what: str) -> int:
    """A port from a word of the command line; 0 stands for any.

    :param what: the whole word, for the text. :raises ConfigurationError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ConfigurationError(f"{what}: {text!r} is no port; a port is a number up to 65535")
    return int(text)


def parse_local(text: str, host: str) -> tuple[str, int]:
    """``PORT``, ``HOST:PORT`` or ``[V6]:PORT``; ``host`` stands where none is given.

    :raises ConfigurationError: it is none of these.
    """
    before, colon, port = text.rpartition(":")
    if colon and not before:
        raise ConfigurationError(f"{text}: no host before the colon; write {host}{text}")
    if before.startswith("[") and before.endswith("]"):
        before = before[1:-1]
    elif ":" in before:
        raise ConfigurationError(f"{text}: write an IPv6 address in brackets, as in [::1]:8080")
    return before or host, parse_port(port, text)


async def ready_agent(reactor: Any, state: Path) -> None:
    """Look whether the agent runs, and has a virtual network for sockets.

    :raises Unreachable: no agent runs. :raises NotPermittedHere: it has no such network.
    """
    status = await ask_agent(reactor, state, "status")
    if status["attachment"] != "open":
        raise NotPermittedHere(f"the virtual network is not open: {status['attachment']}")


def listen(reactor: Any, where: tuple[str, int], factory: IProtocolFactory) -> tuple[str, int]:
    """Listen on this machine; gives where. :raises ConfigurationError: the port cannot be had."""
    host, port = where
    try:
        listening = reactor.listenTCP(port, factory, interface=host)
    except CannotListenError as problem:
        reason = getattr(problem.socketError, "strerror", None) or problem.socketError
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}; name another port"
        ) from None
    taken = listening.getHost()
    return taken.host, taken.port


def run_until_interrupted(begin: Callable[[Any], Coroutine[Any, Any, str]]) -> None:
    """Begin something, say what it said, and go on until Ctrl-C, which is no error.

    :raises NTMobileError: what ``begin`` raises.
    """

    async def main(reactor: Any) -> None:
        click.echo(f"{await begin(reactor)}; Ctrl-C ends it.")
        await Deferred()

    with suppress(click.Abort):
        run(main)
