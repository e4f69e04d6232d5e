"""The client's side of stored data, through real servers of two domains."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ntmobile.client.exchange import Exchange
from ntmobile.client.exchange.asking import SignedServer
from ntmobile.client.pins import PinStore
from ntmobile.client.state import EXCHANGE
from ntmobile.errors import (
    AlreadyExists,
    ContentChanged,
    NoSuchItem,
    UnknownName,
    Unreachable,
    UntrustedIdentity,
)
from tests.exchange_platforms import TEXT, DevicesTestCase
from tests.platforms import DC2


class ClientExchangeTests(DevicesTestCase):
    """Alice's phone sends to Bob's laptop of another domain, which is off."""

    def cut(self, method: str, after: int) -> list[str]:
        """Have the connection break at this request of that method for a part, once.

        :return: the numbers of the parts that were asked for with that method, as they come.
        """
        real, seen = SignedServer.ask, 0
        asked: list[str] = []

        async def ask(server: SignedServer, verb: str, target: str, body: Any = b"") -> bytes:
            nonlocal seen
            if verb == method and "/parts/" in target:
                seen += 1
                asked.append(target.rpartition("/")[2])
                if seen == after:
                    raise Unreachable("the connection was cut")
            return await real(server, verb, target, body)

        self.patch(SignedServer, "ask", ask)
        return asked

    async def test_through(self) -> None:
        """Sent, listed, fetched, confirmed; the sender sees that; nothing is shown again (R32)."""
        phone, laptop = await self.start()
        source = self.letter()
        sent = await phone.exchange.send(
            [laptop.fqdn], source, application="mail", name="letter", note="hello", message="mail"
        )
        (status,) = await phone.exchange.status(sent)
        self.assertEqual((status.destination, status.state), (laptop.fqdn, "waiting"))
        self.assertEqual(await laptop.exchange.inbox("other"), [])
        (item,) = await laptop.exchange.inbox("mail")
        self.assertEqual((item.sender, item.object), (phone.fqdn, sent))
        self.assertEqual((item.details.name, item.details.note), ("letter", "hello"))
        self.assertEqual((item.details.length, item.entry.message), (len(TEXT), "mail"))
        await self.assertRaises_(NoSuchItem, laptop.exchange.confirm(item))
        target = self.letter().with_suffix(".new")
        await laptop.exchange.fetch(item, target)
        self.assertEqual(target.read_bytes(), TEXT)
        laptop.again()
        self.assertEqual(await laptop.exchange.inbox("mail"), [])
        again = target.with_suffix(".again")
        await self.assertRaises_(AlreadyExists, laptop.exchange.fetch(item, again))
        await laptop.exchange.confirm(item)
        (status,) = await phone.exchange.status(sent)
        self.assertEqual(status.state, "confirmed")
        self.assertEqual([each.state for each in phone.exchange.outgoing()], ["confirmed"])

    async def test_other_realm(self) -> None:
        """R1, R28: a receiver of another realm asks the sender's cache server by certificate."""
        phone, laptop = await self.start("other.test")
        sent = await phone.exchange.send([laptop.fqdn], self.letter(b"far"), application="mail")
        (item,) = await laptop.exchange.inbox("mail")
        target = self.letter().with_suffix(".new")
        await laptop.exchange.fetch(item, target)
        self.assertEqual(target.read_bytes(), b"far")
        await laptop.exchange.confirm(item)
        (status,) = await phone.exchange.status(sent)
        self.assertEqual(status.state, "confirmed")

    async def test_several_devices(self) -> None:
        """What goes to all devices of a user is uploaded once; the sender sees who has it.

        A new device gets keys of its own; one that is removed gets nothing new (R31, R34).
        """
        phone, laptop = await self.start()
        bob = "bob.dc2.ntm.example"
        first = await phone.exchange.send([bob], self.letter(b"one"), application="mail")
        tablet = await self.client(self.served.second, f"bob@{DC2}", "tablet")
        await self.be_written_to(tablet)
        put = self.cut("PUT", 1000)
        second = await phone.exchange.send([bob], self.letter(), application="mail")
        self.assertEqual(put, ["0", "1"])
        self.assertEqual(len(phone.store.keys().own), 2)
        (item,) = await tablet.exchange.inbox("mail")
        self.assertEqual(item.object, second)
        self.assertEqual(
            [each.object for each in await laptop.exchange.inbox("mail")], [first, second]
        )
        await tablet.exchange.fetch(item)
        await tablet.exchange.confirm(item)
        states = {each.destination: each.state for each in await phone.exchange.status(second)}
        self.assertEqual(states, {laptop.fqdn: "waiting", tablet.fqdn: "confirmed"})
        (_, item) = await laptop.exchange.inbox("mail")
        await laptop.exchange.fetch(item)
        await laptop.exchange.confirm(item)
        await phone.exchange.status(second)
        (outgoing,) = phone.exchange.outgoing(second)
        self.assertEqual(outgoing.state, "confirmed")

        accounts = self.served.second.realm.accounts()
        accounts.remove(tablet.fqdn, reactor.seconds())
        accounts.close()
        domain = self.served.second.services["dc2"].domain
        await self.eventually(lambda: domain.clients.find(tablet.fqdn) is None, "it is gone")
        third = await phone.exchange.send([bob], self.letter(b"three"), application="mail")
        (outgoing,) = phone.exchange.outgoing(third)
        self.assertEqual([each.destination for each in outgoing.statuses], [laptop.fqdn])
        sending = phone.exchange.send([tablet.fqdn], self.letter(b"no"), application="mail")
        await self.assertRaises_(UnknownName, sending)

    async def test_second_item_shares_the_key(self) -> None:
        """R31: a second item goes under the same shared key, also after a restart."""
        phone, laptop = await self.start()
        for name in ("one", "two"):
            file = self.letter(name.encode())
            await phone.exchange.send([laptop.fqdn], file, application="mail", name=name)
            phone.again()
        items = await laptop.exchange.inbox("mail")
        self.assertEqual([each.details.name for each in items], ["one", "two"])
        self.assertEqual(len({each.manifest.key for each in items}), 1)
        (shared,) = phone.store.keys().own.values()
        self.assertEqual(shared.items, 2)

    async def test_cut(self) -> None:
        """R30: after a cut and a restart, upload and download go on with the next part."""
        phone, laptop = await self.start()
        put = self.cut("PUT", 2)
        sending = phone.exchange.send([laptop.fqdn], self.letter(), application="mail")
        await self.assertRaises_(Unreachable, sending)
        phone.again()
        (outgoing,) = phone.exchange.outgoing()
        self.assertEqual(outgoing.state, "uploading")
        await phone.exchange.resume(outgoing.object)
        self.assertEqual(put, ["0", "1", "1"])
        (item,) = await laptop.exchange.inbox("mail")
        target = self.letter().with_suffix(".new")
        got = self.cut("GET", 2)
        await self.assertRaises_(Unreachable, laptop.exchange.fetch(item, target))
        self.assertFalse(target.exists())
        (part,) = target.parent.glob(f".{item.object.hex()}.part")
        self.assertEqual(part.stat().st_mode & 0o077, 0)
        laptop.again()
        await laptop.exchange.fetch(item, target)
        self.assertEqual(got, ["0", "1", "1"])
        self.assertEqual(target.read_bytes(), TEXT)

    async def test_fetched_by_two(self) -> None:
        """R32: of two who fetch the same item at once, one gets it."""
        phone, laptop = await self.start()
        await phone.exchange.send([laptop.fqdn], self.letter(), application="mail")
        (item,) = await laptop.exchange.inbox("mail")
        target = self.letter().with_suffix(".new")
        fetching = Deferred.fromCoroutine(laptop.exchange.fetch(item, target))
        await self.assertRaises_(AlreadyExists, laptop.exchange.fetch(item, target))
        await fetching
        self.assertEqual(target.read_bytes(), TEXT)

    async def test_changed_file(self) -> None:
        """R30: a file that changed since it was announced is not sent under the same key."""
        phone, laptop = await self.start()
        self.cut("PUT", 1)
        source = self.letter()
        sending = phone.exchange.send([laptop.fqdn], source, application="mail")
        await self.assertRaises_(Unreachable, sending)
        source.write_bytes(TEXT[::-1])
        (outgoing,) = phone.exchange.outgoing()
        await self.assertRaises_(ContentChanged, phone.exchange.resume(outgoing.object))

    async def test_another_identity(self) -> None:
        """R29: nothing goes to, or is shown from, a device with another identity than pinned."""
        phone, laptop = await self.start()
        file = self.letter(b"short")
        await phone.exchange.send([laptop.fqdn], file, application="mail")
        other = evolve(phone.session.identity.certificate, identity=os.urandom(32))
        laptop.pins.check(other)
        self.assertEqual(await laptop.exchange.inbox("mail"), [])
        self.assertEqual(laptop.store.keys().opened, {})
        laptop.pins.trust(phone.fqdn)
        self.assertEqual(len(await laptop.exchange.inbox("mail")), 1)
        certificate = laptop.session.identity.certificate
        phone.pins.check(phone.session.identity.certificate)
        stranger = PinStore(phone.state / "other.db")
        self.addCleanup(stranger.close)
        stranger.check(evolve(certificate, identity=os.urandom(32)))
        exchange = Exchange(reactor, lambda: phone.session, phone.store, stranger)
        sending = exchange.send([laptop.fqdn], file, application="mail")
        await self.assertRaises_(UntrustedIdentity, sending)

    async def test_private(self) -> None:
        """R6: what holds keys can be read by nobody else, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        phone, laptop = await self.start()
        await phone.exchange.send([laptop.fqdn], self.letter(b""), application="mail")
        await laptop.exchange.inbox("mail")
        for client in (phone, laptop):
            files = list(client.state.glob(f"{EXCHANGE}*"))
            self.assertTrue(files)
            for file in files:
                self.assertEqual(file.stat().st_mode & 0o077, 0, file)
