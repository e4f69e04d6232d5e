"""What the client keeps of stored data survives its end at any moment."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.exchange import ExchangeStore, Outgoing, Status
from ntmobile.errors import ConfigurationError, StorageFailed
from ntmobile.machines.exchange.prekeys import PreKeySecret

SENDER, OBJECT = "phone.alice.dc1.ntm.example", bytes(16)


class ExchangeStoreTests(SynchronousTestCase):
    """The file in the state directory."""

    def setUp(self) -> None:
        """A store in a directory of its own."""
        self.place = Path(self.mktemp()).resolve()
        self.store = self.open()

    def open(self) -> ExchangeStore:
        """Open it, as after a restart."""
        store = ExchangeStore(self.place)
        self.addCleanup(store.close)
        return store

    def test_delivered_at_next_start(self) -> None:
        """R32: what ends between the transaction and the rename is delivered at the next start."""
        part, target = self.place / ".part", self.place / "letter"
        part.write_bytes(b"text")
        cut = self.patch(ExchangeStore, "_deliver", lambda store: None)
        self.store.keep_download(SENDER, OBJECT, part, b"")
        self.store.deliver(SENDER, OBJECT, 100, part, target)
        self.assertFalse(target.exists())
        cut.restore()
        again = self.open()
        self.assertEqual(target.read_bytes(), b"text")
        self.assertTrue(again.has_received(SENDER, OBJECT))
        self.assertIsNone(again.download(SENDER, OBJECT))

    def test_delivered_once(self) -> None:
        """R32: the same object of the same sender cannot be delivered a second time."""
        for name in ("one", "two"):
            (self.place / name).write_bytes(b"text")
        target = self.place / "letter"
        self.store.deliver(SENDER, OBJECT, 100, self.place / "one", target)
        with self.assertRaises(StorageFailed):
            self.store.deliver(SENDER, OBJECT, 100, self.place / "two", self.place / "again")
        self.assertFalse((self.place / "again").exists())

    def test_forgotten_after_its_expiry(self) -> None:
        """R32: what was delivered is remembered until its signed expiry, and no longer."""
        (self.place / "one").write_bytes(b"text")
        self.store.deliver(SENDER, OBJECT, 100, self.place / "one", self.place / "letter")
        self.store.forget(100)
        self.assertTrue(self.store.has_received(SENDER, OBJECT))
        self.store.forget(101)
        self.assertFalse(self.store.has_received(SENDER, OBJECT))

    def test_half_fetched(self) -> None:
        """What was half fetched goes with its item, and leaves no file behind."""
        part = self.place / ".0000.part"
        part.write_bytes(b"half")
        self.store.keep_download(SENDER, OBJECT, part, b"")
        self.store.forget(0)
        self.assertFalse(part.exists())
        self.assertIsNone(self.store.download(SENDER, OBJECT))

    def test_name_taken(self) -> None:
        """R32: a file that came in between keeps its name; the item has another, told after."""
        part, target = self.place / ".part", self.place / "letter.txt"
        part.write_bytes(b"text")
        target.write_bytes(b"mine")
        self.store.deliver(SENDER, OBJECT, 100, part, target)
        self.assertEqual(target.read_bytes(), b"mine")
        given = self.store.received_as(SENDER, OBJECT)
        self.assertEqual(given, self.place / "letter-1.txt")
        self.assertEqual((self.place / "letter-1.txt").read_bytes(), b"text")
        self.assertFalse(part.exists())

    def test_linked_and_killed(self) -> None:
        """R32: killed between the file's new name and the end of its old one, it has one name."""
        part, target = self.place / ".part", self.place / "letter"
        part.write_bytes(b"text")
        cut = self.patch(ExchangeStore, "_deliver", lambda store: None)
        self.store.deliver(SENDER, OBJECT, 100, part, target)
        os.link(part, target)
        cut.restore()
        self.open()
        self.assertEqual([one.name for one in self.place.glob("*let*")], ["letter"])
        self.assertFalse(part.exists())

    def test_prekeys(self) -> None:
        """R31: a pre-key's secret is there until it is erased, and known as unpublished."""
        self.store.keep_prekey(PreKeySecret(7, bytes(32), 1.0, 2))
        again = self.open()
        self.assertEqual(list(again.prekeys(bytes(32)).secrets), [7])
        self.assertEqual(again.unpublished(), [7])
        again.published(7)
        self.assertEqual(again.unpublished(), [])
        again.erase_prekeys((7,))
        self.assertEqual(again.prekeys(bytes(32)).secrets, {})

    def test_outgoing(self) -> None:
        """What is to be sent is there after a restart, with all that is needed to go on."""
        where = Status("laptop.bob.dc2.ntm.example", "not told", "its domain is away")
        sent = Outgoing(
            OBJECT, b"manifest", "file", "/a/file", 5, b"hashes", "cs1.dc1", "uploading", 1.0, 9
        )
        self.store.keep_outgoing(sent)
        sent = evolve(sent, state="stored", hashes=b"", reason="why", statuses=(where,))
        self.store.keep_outgoing(sent)
        self.assertEqual(self.open().outgoing(), [sent])

    def test_damaged(self) -> None:
        """A file that is no database is said to be so."""
        place = Path(self.mktemp())
        place.mkdir()
        (place / "exchange.db").write_bytes(b"not a database, but something else" * 99)
        with self.assertRaises(ConfigurationError):
            ExchangeStore(place)
