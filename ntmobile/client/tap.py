"""``twistd ntm-client``: options and service of the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService

from ntmobile.client.agent import Agent
from ntmobile.client.opening import make_node
from ntmobile.client.settings import load_settings
from ntmobile.client.state import default_state
from ntmobile.interfaces import (
    IAttachmentFactory,
    IAttachmentProvider,
    INotificationPresenter,
    INotificationPresenterProvider,
)
from ntmobile.plugins import find
from ntmobile.protocols.logs import LogOptions
from ntmobile.protocols.starting import Starting
from ntmobile.protocols.timing import use_monotonic_time


class Options(LogOptions):
    """Options of the agent."""

    synopsis = "[--state DIR]"
    longdesc = "The agent of an enrolled device; see ntm enroll, and ntm up, which runs it."
    optParameters = [["state", "s", None, "State directory of the device [$NTM_STATE]."]]


def make_agent(state: Path, reactor: Any) -> Agent:
    """The agent of a state directory. :raises NTMobileError: it cannot be."""
    settings = load_settings(state)
    name, section = settings.attachment
    provider: IAttachmentProvider = find(IAttachmentProvider, name)
    attach: IAttachmentFactory = provider.configure(section, reactor)
    name, section = settings.notify
    presenting: INotificationPresenterProvider = find(INotificationPresenterProvider, name)
    presenter: INotificationPresenter = presenting.configure(section, reactor)
    node = make_node(state, settings, reactor)
    return Agent(reactor, state, node, attach, reactor.stop, presenter)


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the service; what is wrong with the device or its settings is one line."""
    if reactor is None:
        from twisted.internet import reactor
    use_monotonic_time(reactor)
    state = Path(options["state"]) if options["state"] else default_state()
    return Starting("ntm-client", lambda: make_agent(state, reactor), options, reactor)
