"""TLS in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.protocols import tls
from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    from ntmobile.testing.internet import VirtualInternet


def run_tls_in(internet: VirtualInternet, case: SynchronousTestCase) -> None:
    """Let Twisted's TLS use the internet's clock for the rest of a test.

    Twisted gathers small writes with ``callLater(0)`` of the *global* reactor unless it is given a
    clock: ``wrapClientTLS(creator, endpoint, clock=reactor)``. Code that gives none says nothing
    over TLS in virtual time, unless this is called, in ``setUp`` for example.
    """
    # Twisted made this a function so that tests may replace it.
    case.patch(tls, "_get_default_clock", lambda: internet.clock)
