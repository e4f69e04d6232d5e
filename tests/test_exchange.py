"""The DC's part of stored data without sockets: bounds, rates, failures, under a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import (
    AuthenticationError,
    CertificateError,
    CertificateNotCurrent,
    StorageFailed,
    Unreachable,
)
from ntmobile.interfaces import KnownDevice
from ntmobile.machines.exchange.desk import KEYS_EACH, LIFETIME, ExchangeDesk
from ntmobile.machines.signalling.clients import Client, ClientTable, Policy
from ntmobile.plugins.store_waiting_sqlite import SQLiteWaitingStore
from ntmobile.servers.exchange import Exchange
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.exchange import (
    CacheServer,
    Delivery,
    EncryptionKeyExchangeRequest,
    RequestInfo,
    TemporalKey,
    TemporalKeyTransferRequest,
    TemporalKeyUploadRequest,
)
from ntmobile.wire.messages.realtime import NotificationRequest, Outcome
from tests.realms import MemoryRealm

_T = TypeVar("_T")
NOW = 1_800_000_000.0
DC1, DC2 = "dc1.ntm.example", "dc2.ntm.example"
PHONE, LAPTOP = f"phone.alice.{DC1}", f"laptop.bob.{DC2}"
SERVER = CacheServer(f"cs1.{DC1}", ())
REALM = MemoryRealm(now=NOW)
CERTIFICATES: dict[str, DeviceCertificate] = {
    fqdn: REALM.device(fqdn)[2] for fqdn in (PHONE, LAPTOP)
}


class NoThread:
    """Workers that work at once."""

    def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        made: Deferred[Any] = Deferred()
        try:
            made.callback(call(*args, **kwargs))
        except Exception:
            made.errback()
        return made


@define(eq=False)
class Side:
    """The DC of Bob's laptop, which has a session there.

    :ivar told: who was told of something. :ivar asked: what the other DC was asked.
    """

    file: Path
    clock: Clock = field(factory=Clock)
    told: list[NotificationRequest] = field(factory=list)
    asked: list[tuple[str, Message]] = field(factory=list)
    accepts: bool = True
    answer: Message | Exception = field(factory=lambda: Unreachable("no answer"))
    clients: ClientTable = field(init=False)
    store: SQLiteWaitingStore = field(init=False)
    exchange: Exchange = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.clients = ClientTable(DC2)
        self.store = SQLiteWaitingStore(self.file)
        thread: Any = NoThread()  # it does what a real one does, at once
        self.exchange = Exchange(
            ExchangeDesk(DC2, self.clients, REALM.trust()),
            self.store,
            thread,
            self.ask,
            self.told.append,
            lambda: self.accepts,
            lambda: NOW + self.clock.seconds(),
            self.clock,
        )

    async def ask(self, domain: str, message: Message) -> Message:
        self.asked.append((domain, message))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def log_in(self, allow: str = "*") -> None:
        """The laptop logs in."""
        client = Client(CERTIFICATES[LAPTOP], bytes(8), 86400.0, Policy((allow,)))
        self.clients.add(client)


class SideCase(SynchronousTestCase):
    """That DC, the laptop logged in."""

    def setUp(self) -> None:
        self.side = Side(Path(self.mktemp()) / "waiting.sqlite")
        self.addCleanup(self.side.store.close)
        self.side.log_in()
        self.exchange = self.side.exchange

    def now(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What comes of something that is done at once."""
        return self.successResultOf(Deferred.fromCoroutine(work))

    def transfer(self, *numbers: int, expires: float = NOW + 3600) -> tuple[Delivery, ...]:
        """Temporal keys of the phone's, from its DC."""
        keys = tuple(TemporalKey(LAPTOP, number.to_bytes(32, "big")) for number in numbers)
        request = TemporalKeyTransferRequest(
            PHONE, CERTIFICATES[PHONE].der, "mail", keys, int(expires)
        )
        return self.now(self.exchange.transferred(DC1, request)).results

    def announce(self, number: int = 1, life: float = 3600) -> tuple[Delivery, ...]:
        """A shared key of the phone's, from its CS."""
        info = RequestInfo("test", PHONE, (LAPTOP,), "mail", message="x" * 256)
        certificate = CERTIFICATES[PHONE].der
        request = EncryptionKeyExchangeRequest(
            SERVER, info, bytes([number]) * 32, certificate, int(NOW + life)
        )
        answer: Any = self.now(self.exchange.cache_asked(SERVER.name, request))
        results: tuple[Delivery, ...] = answer.results
        return results


class TransferTests(SideCase):
    def test_longest(self) -> None:
        """R31: nothing waits longer than 30 days, whatever its sender wants."""
        self.transfer(1, expires=NOW + 10 * LIFETIME)
        self.side.clock.advance(LIFETIME - 1)
        self.assertEqual(len(self.now(self.exchange.key_list(LAPTOP, b"")).identifiers), 1)
        self.side.clock.advance(1)
        self.assertEqual(self.now(self.exchange.key_list(LAPTOP, b"")).identifiers, ())
        self.now(self.exchange.tick())
        self.assertEqual(self.side.store.expire(NOW + 10 * LIFETIME), 0)

    def test_full(self) -> None:
        """R31: of one sender so many keys wait for a device; more are told to come later."""
        self.patch(self.exchange.store, "keep_keys", self.full(self.exchange.store.keep_keys))
        self.transfer(1)
        (result,) = self.transfer(2)
        self.assertEqual(result.outcome, Outcome.BUSY)
        self.assertIn("try again", result.reason)

    def full(self, keep: Callable[..., Any]) -> Callable[..., Any]:
        """The store, with room for one of a sender."""

        def with_less(keys: Any, each: int, all_: int) -> Any:
            self.assertEqual(each, KEYS_EACH)
            return keep(keys, 1, all_)

        return with_less

    def test_rate(self) -> None:
        """A sender that asks too much is told so, and may go on later."""
        outcomes = [self.transfer(1)[0].outcome for _ in range(1100)]
        self.assertEqual(outcomes[-1], Outcome.BUSY)
        self.side.clock.advance(5)
        self.assertEqual(self.transfer(1)[0].outcome, Outcome.OK)

    def test_storage(self) -> None:
        """A storage that fails loses nothing and tells no file: the sender tries again."""

        def broken(*args: Any) -> Any:
            raise StorageFailed("/var/lib/secret.sqlite: disk full")

        self.patch(self.exchange.store, "keep_keys", broken)
        (result,) = self.transfer(1)
        self.assertEqual(result.outcome, Outcome.BUSY)
        self.assertNotIn("/var", result.reason)

    def test_off_for_long(self) -> None:
        """R13: whom a device admits is known after its session ended."""
        self.side.clients.remove(LAPTOP)
        self.assertEqual(self.transfer(1)[0].outcome, Outcome.UNKNOWN)
        laptop = CERTIFICATES[LAPTOP]
        for allow, outcome in ((("nobody",), Outcome.UNKNOWN), (("*.ntm.example",), Outcome.OK)):
            self.side.store.note([KnownDevice(LAPTOP, laptop.der, laptop.identity, allow)], [])
            self.assertEqual(self.transfer(1)[0].outcome, outcome)


class UploadTests(SideCase):
    """Bob's laptop leaves a key for Alice's phone: this DC is DC_MN."""

    def upload(self, *fqdns: str) -> dict[str, Delivery]:
        keys = tuple(TemporalKey(fqdn, bytes(32)) for fqdn in fqdns)
        request = TemporalKeyUploadRequest(RequestInfo("test", LAPTOP), keys, int(NOW) + 99)
        certificate = CERTIFICATES[LAPTOP].der
        answer = self.now(self.exchange.upload_keys(LAPTOP, certificate, request))
        return {one.destination: one for one in answer.results}

    def test_unreachable(self) -> None:
        """A domain that does not answer is told, by name."""
        found = self.upload(PHONE)[PHONE]
        self.assertEqual(found.outcome, Outcome.UNREACHABLE)
        self.assertIn(DC1, found.reason)

    def test_no_word(self) -> None:
        """Of a destination that the other DC says nothing about nothing is claimed."""
        self.side.answer = TemporalKeyTransferRequest(
            PHONE, CERTIFICATES[PHONE].der, "", (TemporalKey(PHONE, bytes(32)),), 1
        )
        self.assertEqual(self.upload(PHONE)[PHONE].outcome, Outcome.UNREACHABLE)

    def test_each_domain_once(self) -> None:
        """One request goes to each domain, and none to those of no realm."""
        self.upload(PHONE, f"tablet.alice.{DC1}", LAPTOP, "a.b.elsewhere.example")
        self.assertEqual([domain for domain, _ in self.side.asked], [DC1])


class AnnouncementTests(SideCase):
    def test_told(self) -> None:
        """R33: what is new is told, with as much of the public message as is carried."""
        self.announce()
        self.announce()
        self.announce(2)
        self.assertEqual([one.receiver for one in self.side.told], [LAPTOP] * 2)
        self.assertEqual(self.side.told[0].message, "x" * 200)

    def test_late(self) -> None:
        """What a CS could not tell for days is taken although the sender's certificate expired."""
        self.side.clock.advance(3 * 86400)
        (result,) = self.announce(life=4 * 86400)
        self.assertEqual(result.outcome, Outcome.OK)
        with self.assertRaises(CertificateNotCurrent):
            desk, der = self.exchange.desk, CERTIFICATES[PHONE].der
            desk.check_sender("dc", DC1, PHONE, der, NOW + 3 * 86400)

    def test_expired(self) -> None:
        """What has expired is not listed any more, and not taken."""
        (result,) = self.announce(life=-1)
        self.assertEqual(result.outcome, Outcome.REFUSED)
        self.assertEqual(self.side.told, [])

    def test_reminded(self) -> None:
        """A device that comes back is told if something waits, and not at each move.

        That it moved about before anything waited changes nothing.
        """
        for _ in range(4):
            self.now(self.exchange.came_back(LAPTOP))
        self.assertEqual(self.side.told, [])
        self.announce()
        self.side.told.clear()
        self.side.clock.advance(1800)
        for _ in range(10):
            self.now(self.exchange.came_back(LAPTOP))
        self.assertEqual([one.receiver for one in self.side.told], [LAPTOP] * 2)


class DeskTests(SideCase):
    def test_rates(self) -> None:
        """R1, R13: no sender uses up what its server may ask, and no server what others' may."""
        desk, other = self.exchange.desk, f"tablet.alice.{DC1}"
        allowed = [desk.allows(DC1, PHONE, 0.0) for _ in range(5000)]
        self.assertFalse(allowed[-1])
        self.assertTrue(desk.allows(DC1, other, 0.0))
        for _ in range(2000):
            with self.assertRaises(AuthenticationError):
                self.exchange._refused("cs", f"cs1.{DC2}", other, b"", [LAPTOP])
        self.assertTrue(desk.allows(DC1, other, 0.0))

    def test_speaks_for(self) -> None:
        """R1: servers speak for devices of their own domain, under certificates of their own."""
        desk, der = self.exchange.desk, CERTIFICATES[PHONE].der
        self.assertEqual(desk.check_sender("dc", DC1, PHONE, der, NOW).fqdn, PHONE)
        self.assertEqual(desk.check_sender("cs", SERVER.name, PHONE, der, NOW).fqdn, PHONE)
        for role, name in (("dc", DC2), ("cs", f"cs1.{DC2}"), ("cs", DC1), ("rs", SERVER.name)):
            with self.assertRaises(AuthenticationError):
                desk.check_sender(role, name, PHONE, der, NOW)

    def test_certificates(self) -> None:
        """R13: a certificate of another device, or of a realm that is not trusted, is refused."""
        desk = self.exchange.desk
        stranger = MemoryRealm(now=NOW).device(PHONE)[2]
        for der in (CERTIFICATES[LAPTOP].der, stranger.der, b"no certificate" * 10):
            with self.assertRaises(CertificateError):
                desk.check_sender("dc", DC1, PHONE, der, NOW)
