"""Starting under twistd: what is wrong is one line and a non-zero exit, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from ntmobile.errors import NTMobileError
from ntmobile.protocols.logs import LogOptions


class Starting(Service):
    """Makes and starts a service; an :class:`NTMobileError` on the way ends the program with it.

    :param program: its name in the line.
    :param make: makes the service.
    :param options: say how it logs. :param reactor: the one that it runs on.
    """

    def __init__(
        self, program: str, make: Callable[[], Service], options: LogOptions, reactor: Any
    ) -> None:
        self._program = program
        self._process = os.getpid()
        try:
            self._observer = options.observer(reactor)
            self._service = make()
        except NTMobileError as problem:
            raise SystemExit(f"{program}: {problem}") from None

    def setServiceParent(self, parent: Any) -> None:
        """Also have ``twistd`` log as the options say: its application names the observer."""
        Service.setServiceParent(self, parent)
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)

    def startService(self) -> None:
        """Start it, or exit."""
        Service.startService(self)
        try:
            self._service.startService()
        except NTMobileError as problem:
            if os.getpid() != self._process:
                # A daemon: the command that started it waits for an ordinary exception, which
                # twistd tells it, and would wait for ever after an exit.
                raise problem.with_traceback(None) from None
            raise SystemExit(f"{self._program}: {problem}") from None

    def stopService(self) -> Deferred[Any] | None:
        """Stop it."""
        Service.stopService(self)
        stopped: Deferred[Any] | None = self._service.stopService()
        return stopped
