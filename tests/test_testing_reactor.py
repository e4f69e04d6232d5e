"""The reactor of a host."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IReactorInThreads,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    IResolutionReceiver,
)
from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ntmobile.testing import VirtualInternet
from ntmobile.testing.names import Names


@implementer(IResolutionReceiver)
class Receiver:
    """Notes a resolution."""

    def __init__(self) -> None:
        self.addresses: list[IAddress] = []
        self.done = False

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.name = resolutionInProgress.name

    def addressResolved(self, address: IAddress) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.done = True


class HostReactorTests(SynchronousTestCase):
    """What programs expect of a reactor."""

    def setUp(self) -> None:
        self.internet = VirtualInternet(seed=1)
        self.host = self.internet.host("host", "203.0.113.1")
        self.reactor = self.host.reactor

    def test_interfaces(self) -> None:
        """It provides Twisted's interfaces."""
        for interface in (
            IReactorTime,
            IReactorUDP,
            IReactorTCP,
            IReactorFromThreads,
            IReactorInThreads,
            IReactorPluggableNameResolver,
        ):
            self.assertTrue(verifyObject(interface, self.reactor))

    def test_calls(self) -> None:
        """Calls run in virtual time, and are those of this host alone."""
        called: list[object] = []
        self.reactor.callLater(5, called.append, 1)
        other = self.internet.host("other", "203.0.113.2")
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.assertEqual(other.reactor.getDelayedCalls(), [])
        self.internet.advance(5)
        self.assertEqual((called, self.reactor.seconds()), ([1], 5))

    def test_running(self) -> None:
        """It is running: what waits for that is called at once."""
        called: list[object] = []
        self.reactor.callWhenRunning(called.append, 1)
        self.assertEqual((called, self.reactor.running), ([1], True))

    def test_threads(self) -> None:
        """What asks for a thread is run in a later turn, and its result or failure comes back."""
        called: list[object] = []
        self.reactor.callFromThread(called.append, 1)
        self.reactor.callInThread(called.append, 2)
        self.assertEqual(called, [])
        self.internet.advance(0)
        self.assertEqual(called, [1, 2])
        # Any: our pool stands in for a ThreadPool without being one.
        pool: Any = self.reactor.getThreadPool()
        result = deferToThreadPool(self.reactor, pool, sum, (1, 2))
        self.assertEqual(self.internet.result(result), 3)
        failing = deferToThreadPool(self.reactor, pool, lambda: 1 / 0)
        self.assertRaises(ZeroDivisionError, self.internet.result, failing)

    def test_triggers(self) -> None:
        """Shutdown triggers are called by phase, removed ones are not."""
        called: list[object] = []
        add = self.reactor.addSystemEventTrigger
        add("after", "shutdown", called.append, 3)
        add("before", "shutdown", called.append, 1)
        removed = add("during", "shutdown", called.append, 2)
        add("during", "startup", called.append, 0)
        self.reactor.removeSystemEventTrigger(removed)
        self.assertRaises(ValueError, self.reactor.removeSystemEventTrigger, removed)
        self.reactor.fireSystemEvent("shutdown")
        self.assertEqual(called, [1, 3])

    def test_resolve(self) -> None:
        """Names of the internet are resolved, others are not."""
        self.internet.names.set("dc1.ntm.example", "2001:db8::9", "203.0.113.9")
        resolve = self.reactor.resolve
        self.assertEqual(self.successResultOf(resolve("DC1.ntm.example.")), "203.0.113.9")
        self.assertEqual(self.successResultOf(resolve("203.0.113.1")), "203.0.113.1")
        self.failureResultOf(resolve("other.example"), DNSLookupError)
        self.internet.names.set("dc1.ntm.example")
        self.failureResultOf(resolve("dc1.ntm.example"), DNSLookupError)

    def test_other_resolver(self) -> None:
        """A program may install its own resolver."""
        names = Names()
        self.assertIs(self.reactor.installNameResolver(names), self.internet.names)
        self.assertIs(self.reactor.nameResolver, names)


class NamesTests(SynchronousTestCase):
    """The names that hosts know."""

    def resolve(self, *types: type[IAddress]) -> list[IAddress]:
        """The addresses of a dual-stack name."""
        names = Names()
        self.assertTrue(verifyObject(IHostnameResolver, names))
        names.set("a.example", "2001:DB8::9", "203.0.113.9")
        receiver = Receiver()
        resolution = names.resolveHostName(receiver, "a.example", 53, types or None, "UDP")
        self.assertTrue(verifyObject(IHostResolution, resolution))
        resolution.cancel()
        self.assertEqual((receiver.name, receiver.done), ("a.example", True))
        return receiver.addresses

    def test_all(self) -> None:
        """All addresses are given, with the port and semantics asked for."""
        six, four = IPv6Address("UDP", "2001:db8::9", 53), IPv4Address("UDP", "203.0.113.9", 53)
        self.assertEqual(self.resolve(), [six, four])

    def test_one_family(self) -> None:
        """Or those of one type."""
        self.assertEqual(self.resolve(IPv4Address), [IPv4Address("UDP", "203.0.113.9", 53)])

    def test_unknown(self) -> None:
        """An unknown name ends without addresses."""
        receiver = Receiver()
        Names().resolveHostName(receiver, "b.example")
        self.assertEqual((receiver.addresses, receiver.done), ([], True))
