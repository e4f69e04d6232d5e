"""The trace: one debug event for each message of the protocol, with who sends it to whom.

A client traces what it exchanges with relays and correspondents, a DC what it exchanges with its
clients, and every server what it sends over its links; so where all are traced, each message is
there once. ``ntm demo`` draws its ladder from it. It is off unless asked for
(:mod:`ntmobile.protocols.logs`), and then costs one comparison.

No content is traced: a message's title, its ends, and a word about it (rule R6).
"""

from __future__ import annotations

from typing import Final

from attrs import define
from twisted.logger import Logger

from ntmobile.wire.codec import Message, declaration_of

#: The namespace of the events, by which a log is searched for them.
NAMESPACE: Final = "ntmobile.trace"

log: Final = Logger(namespace=NAMESPACE)


@define
class Switch:
    """Whether the trace is on."""

    on: bool = False


switch: Final = Switch()


def trace(message: Message | str, sender: str, receiver: str, detail: str = "") -> None:
    """Trace a message; callers on hot paths look at :attr:`Switch.on` themselves.

    :param message: it, or its title.
    :param sender: :param receiver: names: FQDN of a client, domain of a DC, name of an RS.
    :param detail: a word more, such as the relay that it goes through; else the reason that the
        message itself gives, if it gives one.
    """
    if not switch.on:
        return
    title = message if isinstance(message, str) else declaration_of(message).title
    detail = detail or getattr(message, "reason", "")
    log.debug(
        "{sender} -> {receiver}: {message}{shown}",
        message=title,
        sender=sender,
        receiver=receiver,
        detail=detail,
        shown=f" ({detail})" if detail else "",
    )


def note(what: str, detail: str = "") -> None:
    """Trace a step that this program takes by itself, such as a look-up; its title and a word."""
    if switch.on:
        log.debug("{note}: {detail}", note=what, detail=detail)
