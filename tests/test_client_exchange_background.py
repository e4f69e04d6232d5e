"""What an exchange does by itself: goes on, gives up, confirms, tells; through real servers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ntmobile.client.exchange import (
    Arrived,
    Delivered,
    Failed,
    Item,
    Stored,
    Uploading,
)
from ntmobile.client.exchange.asking import SignedServer
from ntmobile.client.exchange.parcel import Parcel
from ntmobile.client.state import EXCHANGE, OUTBOX, RECEIVED
from ntmobile.errors import (
    ContentChanged,
    InvalidName,
    NTMobileError,
    StorageFull,
    UnknownName,
    Unreachable,
)
from ntmobile.machines.exchange.manifests import Details
from ntmobile.machines.exchange.prekeys import WEEK
from tests.exchange_platforms import Client, DevicesTestCase


class BackgroundTests(DevicesTestCase):
    """Alice's phone and Bob's laptop, whose exchanges are started."""

    async def begin(self, client: Client) -> list[object]:
        """Start its exchange; what it tells."""
        heard: list[object] = []
        client.exchange.listen(heard.append)
        client.exchange.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(client.exchange.stop()))
        return heard

    async def hears(self, heard: list[object], kind: type[Any]) -> Any:
        """The first event of a kind."""
        await self.eventually(
            lambda: any(isinstance(one, kind) for one in heard), f"{kind.__name__} in {heard}"
        )
        return next(one for one in heard if isinstance(one, kind))

    def fails(self, problem: NTMobileError, where: str, times: int = 1) -> list[str]:
        """Have requests for what has ``where`` in its path fail so often; all that are made."""
        real = SignedServer.ask
        asked: list[str] = []

        async def ask(server: SignedServer, verb: str, target: str, body: Any = b"") -> bytes:
            if where in target:
                asked.append(f"{verb} {target}")
                if len(asked) <= times:
                    raise problem
            return await real(server, verb, target, body)

        self.patch(SignedServer, "ask", ask)
        return asked

    async def test_goes_on(self) -> None:
        """R30: an upload that was cut goes on by itself, and its receiver's confirmation is heard.

        The receiver is told of it once; a confirmation that did not come through is repeated.
        """
        phone, laptop = await self.start()
        sent, came = await self.begin(phone), await self.begin(laptop)
        asked = self.fails(Unreachable("the connection was cut"), "/parts/")
        sending = phone.exchange.send([laptop.fqdn], self.letter(), application="mail")
        await self.assertRaises_(Unreachable, sending)
        (outgoing,) = phone.exchange.outgoing()
        self.assertEqual((outgoing.state, outgoing.reason), ("uploading", "the connection was cut"))
        phone.exchange.wake()
        await self.hears(sent, Stored)
        self.assertEqual([one[:4] for one in asked], ["PUT "] * 3)
        self.assertIn(Uploading(outgoing.object, 0, outgoing.length, outgoing.reason), sent)
        laptop.exchange.look()
        item: Item = (await self.hears(came, Arrived)).item
        confirmed = self.fails(Unreachable("the connection was cut"), "/confirm")
        await laptop.exchange.fetch(item, confirm=True)
        self.assertEqual(await self.hears(sent, Delivered), Delivered(item.object, laptop.fqdn))
        self.assertEqual(len(confirmed), 2)
        self.assertEqual(laptop.exchange.waiting_confirmations(), [])
        self.assertEqual(len([one for one in came if isinstance(one, Arrived)]), 1)
        (outgoing,) = phone.exchange.outgoing()
        self.assertEqual(outgoing.state, "confirmed")

    async def test_after_a_restart(self) -> None:
        """What was begun before the end of a program goes on at its next start; leftovers go."""
        phone, laptop = await self.start()
        self.fails(Unreachable("the connection was cut"), "/parts/")
        sending = phone.exchange.send([laptop.fqdn], b"read me later", application="mail")
        await self.assertRaises_(Unreachable, sending)
        outbox = phone.state / OUTBOX
        self.assertEqual(len(list(outbox.iterdir())), 1)
        (outbox / "left").write_bytes(b"by a program that was killed")
        phone.again()
        sent = await self.begin(phone)
        await self.hears(sent, Stored)
        self.assertEqual(list(outbox.iterdir()), [])
        (item,) = await laptop.exchange.inbox("mail")
        path = await laptop.exchange.fetch(item)
        self.assertEqual(path.read_bytes(), b"read me later")
        self.assertEqual(path.parent, laptop.state / RECEIVED)
        self.assertEqual(path.stat().st_mode & 0o077, 0)

    async def test_server_away(self) -> None:
        """A cache server vanishes between upload and exchange: all is there when it is back."""
        phone, laptop = await self.start()
        sent = await self.begin(phone)
        self.fails(Unreachable("the cache server is gone"), "/complete")
        sending = phone.exchange.send([laptop.fqdn], self.letter(), application="mail")
        await self.assertRaises_(Unreachable, sending)
        await self.served.stop()
        self.assertEqual(await laptop.exchange.inbox("mail"), [])
        self.served.start()
        await self.registered(self.served)
        await self.tokens_known(self.served)
        phone.exchange.wake()
        await self.hears(sent, Stored)
        self.assertEqual(len(await laptop.exchange.inbox("mail")), 1)

    async def test_gives_up(self) -> None:
        """What another attempt cannot change is told once, with its reason, and not repeated."""
        phone, laptop = await self.start()
        sent = await self.begin(phone)
        self.fails(StorageFull("the cache server is full"), "/v1/objects")
        sending = phone.exchange.send([laptop.fqdn], b"much", application="mail")
        await self.assertRaises_(StorageFull, sending)
        (outgoing,) = phone.exchange.outgoing()
        self.assertEqual(outgoing.state, "failed")
        self.assertEqual(sent, [Failed(outgoing.object, "the cache server is full")])
        self.assertEqual(list((phone.state / OUTBOX).iterdir()), [])

    async def test_gone(self) -> None:
        """A file that is gone before it was sent is named; nothing of it is shown anywhere."""
        phone, laptop = await self.start()
        file = self.letter()
        parcel = Parcel((laptop.fqdn,), file, "mail")
        outgoing = await phone.exchange.announce(parcel)
        file.unlink()
        problem = await self.assertRaises_(ContentChanged, phone.exchange.resume(outgoing.object))
        self.assertIn(f"{file}: is gone", str(problem))
        self.assertEqual(await laptop.exchange.inbox("mail"), [])

    async def test_never_comes(self) -> None:
        """A receiver that never comes: the item expires, and the sender sees that."""
        phone, laptop = await self.start()
        sent = await phone.exchange.send([laptop.fqdn], b"hi", application="mail", lifetime=600)
        offset = phone.session.time_offset
        phone.session = evolve(phone.session, time_offset=offset + 601)
        phone.again()
        (status,) = await phone.exchange.status(sent)
        self.assertEqual((status.destination, status.state), (laptop.fqdn, "waiting"))
        (outgoing,) = phone.exchange.outgoing()
        self.assertEqual(outgoing.state, "expired")

    async def test_weekly(self) -> None:
        """R31: a new pre-key after a week; what was sent under the former one opens."""
        phone, laptop = await self.start()
        await phone.exchange.send([laptop.fqdn], b"old", application="mail")
        for age, secrets in ((WEEK - 60, 1), (120, 2)):
            with closing(sqlite3.connect(laptop.state / EXCHANGE)) as database, database:
                database.execute("UPDATE prekeys SET made = made - ?", (age,))
            await laptop.exchange.publish()
            self.assertEqual(len(laptop.store.prekeys(b"").secrets), secrets)
        await phone.exchange.send([laptop.fqdn], b"new", application="mail")
        items = await laptop.exchange.inbox("mail")
        self.assertEqual(len({item.manifest.key for item in items}), 2)

    async def test_enrolled_anew(self) -> None:
        """R31: a device that is enrolled anew has new keys, and nothing of the old ones."""
        phone, laptop = await self.start()
        before = laptop.store.prekeys(b"").secrets
        self.assertEqual(len(before), 1)
        laptop.store.adopt(bytes(32))
        self.assertEqual(laptop.store.prekeys(b"").secrets, {})
        laptop.store.adopt(bytes(32))
        await phone.exchange.send([laptop.fqdn], b"hi", application="mail")
        phone.store.adopt(bytes(32))
        self.assertEqual(phone.store.keys().own, {})
        self.assertEqual([one.state for one in phone.exchange.outgoing()], ["stored"])

    async def test_users_and_strangers(self) -> None:
        """What prevents one of several destinations is said of that one, and nothing is sent."""
        phone, laptop = await self.start()
        cases: tuple[tuple[list[str], type[NTMobileError], str], ...] = (
            ([laptop.fqdn, "no.bob.dc2.ntm.example"], UnknownName, "no.bob.dc2.ntm.example is not"),
            ([laptop.fqdn, phone.fqdn], InvalidName, "this device itself"),
            ([], InvalidName, "1 to 64 devices"),
        )
        for destinations, kind, text in cases:
            sending = phone.exchange.send(destinations, b"hi", application="mail")
            self.assertIn(text, str(await self.assertRaises_(kind, sending)))
        self.assertEqual(phone.exchange.outgoing(), [])

    async def test_stopped(self) -> None:
        """What is under way at the end of a program fails then, and goes on at the next start."""
        phone, laptop = await self.start()
        phone.exchange.start()
        real = SignedServer._ask

        async def ask(server: SignedServer, *words: Any) -> tuple[int, bytes]:
            if "/parts/" in words[1]:
                stopping.append(Deferred.fromCoroutine(phone.exchange.stop()))
            return await real(server, *words)

        stopping: list[Deferred[None]] = []
        self.patch(SignedServer, "_ask", ask)
        sending = phone.exchange.send([laptop.fqdn], self.letter(), application="mail")
        await self.assertRaises_(Unreachable, sending)
        await stopping[0]
        self.assertEqual(len(stopping), 1)
        self.patch(SignedServer, "_ask", real)
        phone.again()
        heard = await self.begin(phone)
        await self.hears(heard, Stored)

    async def test_moves(self) -> None:
        """A request that is under way when the network changes is made again at once."""
        phone, laptop = await self.start()
        await self.begin(phone)
        real = SignedServer._ask
        moved = False

        async def ask(server: SignedServer, *words: Any) -> tuple[int, bytes]:
            nonlocal moved
            if not moved and "/parts/" in words[1]:
                moved = True
                reactor.callLater(0, phone.exchange.network_changed)
            return await real(server, *words)

        self.patch(SignedServer, "_ask", ask)
        await phone.exchange.send([laptop.fqdn], self.letter(), application="mail")
        self.assertTrue(moved)
        self.assertEqual([one.state for one in phone.exchange.outgoing()], ["stored"])


class NameTests(DevicesTestCase):
    """What items are called in a directory."""

    def item(self, name: str) -> Item:
        """An item whose sender calls it so."""
        manifest: Any = type("M", (), {"object": bytes(range(16))})
        entry: Any = None
        return Item(entry, manifest, Details(name, "", 1))

    def test_names(self) -> None:
        """A sender's name can neither leave the directory, nor hide, nor look like an option."""
        for name, expected in (
            ("letter.txt", "letter.txt"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\evil.exe", "evil.exe"),
            ("a\nb\x1b[2J", "a?b?[2J"),
            ("Ä €.txt", "Ä €.txt"),
            (".profile", "item-00010203"),
            ("-rf", "item-00010203"),
            ("..", "item-00010203"),
            ("", "item-00010203"),
            ("/", "item-00010203"),
        ):
            self.assertEqual(self.item(name).file_name, expected)
        self.assertLessEqual(len(self.item("€" * 255).file_name.encode()), 200)
        self.assertEqual(Path(self.item("x" * 255).file_name).name, "x" * 200)
