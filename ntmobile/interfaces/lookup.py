# ruff: noqa: N805  (methods of an interface have no self)
"""How the coordinator of a domain is found."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


@frozen
class Coordinator:
    """Where a domain's coordinator may be reached: hints only (rule R14).

    Who answers there must prove by its certificate to be the coordinator of ``domain``.

    :ivar domain: the domain asked for.
    :ivar servers: numeric host and TCP port, IPv4 and IPv6, in order of preference; at least one.
    :ivar udp_port: the port for signalling at the first of them.
    :ivar tcp_port: the port for login and for other servers at the first of them.
    """

    domain: str
    servers: tuple[tuple[str, int], ...]
    udp_port: int
    tcp_port: int


class ICoordinatorLookup(Interface):
    """Finds the coordinator of a domain, which is a correspondent's name less two labels."""

    def find(domain: str) -> Deferred[Coordinator]:
        """Find the coordinator of ``domain``; may be called as often as wished.

        The cost of one call is bounded in time and work whatever the sources answer.

        :param domain: such as ``dc1.ntm.example``.
        :return: fires with a :class:`Coordinator`, or fails with
            :class:`~ntmobile.errors.UnknownName` (there is none),
            :class:`~ntmobile.errors.Unreachable` (it cannot be told now) or
            :class:`~ntmobile.errors.InvalidName`. Cancelling one caller's Deferred does not
            disturb the others'.
        """


class ICoordinatorLookupProvider(Interface):
    """A plugin that makes an :class:`ICoordinatorLookup` from a server's ``[lookup]`` section."""

    name: str = Attribute("what ``plugin = ...`` in the section says, such as ``dns``")

    def configure(section: Mapping[str, object], reactor: object) -> ICoordinatorLookup:
        """Make a lookup.

        :param section: the section without its ``plugin`` key.
        :param reactor: provides what the plugin needs of a reactor (time, UDP, TCP).
        :raises ConfigurationError: an unknown key or a wrong value, named exactly.
        """
