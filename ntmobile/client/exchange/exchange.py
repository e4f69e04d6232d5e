"""Sending and receiving stored data, on coroutines (paper, figures 3 and 4).

::

    object = await node.exchange.send([fqdn], Path("letter"), application="mail")

    for item in await node.exchange.inbox("mail"):
        await node.exchange.fetch(item, Path("inbox") / item.file_name)
        await node.exchange.confirm(item)

Listeners of the node hear :class:`Arrived`, :class:`Uploading`, :class:`Stored`,
:class:`Delivered` and :class:`Failed`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from ntmobile.client.exchange import receiving, sending
from ntmobile.client.exchange.asking import Session
from ntmobile.client.exchange.background import Background
from ntmobile.client.exchange.device import Device
from ntmobile.client.exchange.items import Item, Outgoing, Status
from ntmobile.client.exchange.parcel import LIFETIME, Parcel, check_labels
from ntmobile.client.exchange.receiving import Listing
from ntmobile.client.exchange.sending import Progress
from ntmobile.client.exchange.spool import Spool
from ntmobile.client.exchange.store import ExchangeStore
from ntmobile.client.pins import PinStore
from ntmobile.machines.exchange.signing import SKEW
from ntmobile.machines.login.identities import Devices

log = Logger()
_T = TypeVar("_T")


class Exchange:
    """The stored data of one device.

    :param session: the session of the latest login; raises :class:`NotRegistered` without one.
    :param store: kept in the state directory; closed by :meth:`stop`.
    :param pins: of correspondents, as for tunnels.
    :param ask_devices: gets a user's verified device list, for successions (R5).
    :param tell: hears what happens. :param wall: unix seconds of this device.
    """

    def __init__(
        self,
        reactor: Any,
        session: Callable[[], Session],
        store: ExchangeStore,
        pins: PinStore,
        ask_devices: Callable[[str], Awaitable[Devices]] | None = None,
        tell: Callable[[object], None] = lambda event: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.spool = Spool(store.directory)
        self._tell = tell
        self._store = store
        self._device = Device(
            reactor, session, self._store, self.spool, pins, ask_devices, wall, self._told
        )
        self._lock = DeferredLock()
        self._listeners: list[Callable[[object], None]] = []
        # Now, when nobody can have begun to write one: what no upload needs was left by a crash.
        self.spool.sweep(one.source for one in store.outgoing() if one.state == "uploading")
        self._background = Background(self._device, self.publish, lambda: self.inbox(None))

    # -- life

    def start(self) -> None:
        """Publish pre-keys now and weekly, go on with what was cut, and tell what arrives.

        Also to be called when there is a new session, or the network is back.
        """
        self._device.lasting = True
        self._background.start()

    async def stop(self) -> None:
        """End all that; what was begun goes on at the next start."""
        await self._background.stop()
        await self._device.end()
        self._store.close()

    def network_changed(self) -> None:
        """Go on in another network."""
        self._device.network_changed()
        self._background.wake()

    def wake(self) -> None:
        """Go on now with what was begun."""
        self._background.wake()

    def look(self) -> None:
        """The DC says that something waits: see what, and tell it."""
        self._background.wake(look=True)

    def listen(self, listener: Callable[[object], None]) -> Callable[[], None]:
        """Tell a listener of what happens, until what is returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _told(self, event: object) -> None:
        self._tell(event)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.failure("a listener failed")

    @property
    def published(self) -> bool:
        """Whether this device can be written to: the DC has its pre-keys."""
        secrets = self._device.store.prekeys(b"").secrets
        return bool(secrets) and not self._store.unpublished()

    async def publish(self) -> None:
        """Make a pre-key where one is due, and publish what the DC may not have (R31)."""
        self._store.forget(self._device.now() - SKEW)
        await self._alone(lambda: receiving.publish(self._device))

    # -- the sender's side

    async def send(
        self,
        destinations: Sequence[str],
        source: Path | bytes,
        *,
        application: str,
        service: str = "",
        item: str = "",
        name: str | None = None,
        type: str = "",
        note: str = "",
        message: str = "",
        lifetime: float = LIFETIME,
    ) -> bytes:
        """Send a file, or bytes, to devices that may be off; returns when the CS has it.

        After a cut it goes on by itself while the node runs, and with :meth:`resume`.

        :param destinations: devices; a user stands for all of theirs.
        :param name: by default the file's. :param type: a media type. :param note: for receivers;
            these three are sealed. :param message: the notification, which servers read (R33).
        :param lifetime: seconds, at most 30 days.
        :return: the object's identifier.
        :raises NTMobileError: it is not stored, or a destination is not trusted or cannot be asked.
        """
        announced = await self.announce(
            Parcel(
                tuple(destinations),
                source,
                application,
                service=service,
                item=item,
                name=name,
                type=type,
                note=note,
                message=message,
                lifetime=lifetime,
            )
        )
        await self.resume(announced.object)
        return announced.object

    async def announce(
        self, parcel: Parcel, progress: Progress = lambda done, length: None
    ) -> Outgoing:
        """The first half of :meth:`send`: all but the upload, which :meth:`resume` does.

        :param progress: hears how far the file was read, in bytes, of how many.
        """
        parcel.check()
        path = self.spool.keep(parcel.source) if isinstance(parcel.source, bytes) else parcel.source
        try:
            agreed = await self._alone(lambda: sending.share(self._device, parcel))
            return await sending.announce(self._device, parcel, path, agreed, progress)
        except BaseException:
            self.spool.remove(path)
            raise

    async def resume(self, object: bytes) -> None:
        """Go on with an upload that was cut.

        :raises ContentChanged: the file changed since; send it anew (R30).
        """
        await self._background.upload(object)

    async def withdraw(self, object: bytes) -> None:
        """Take back what was sent: who has not fetched it yet never will.

        :raises NoSuchItem: nothing was sent from here under that identifier, or all have it.
        :raises Unreachable: the CS cannot be told now; nothing was changed.
        """
        await self._background.withdraw(object)

    def outgoing(self, object: bytes | None = None) -> list[Outgoing]:
        """What was sent, or is to be, oldest first; or only the one that is named."""
        return self._store.outgoing(object)

    async def status(self, object: bytes) -> tuple[Status, ...]:
        """How far an object has come; each confirmation is verified (R32).

        :raises AuthenticationError: a confirmation is not the receiver's.
        """
        outgoing = await self._background.ask(sending.find(self._device, object))
        return outgoing.statuses

    # -- the receiver's side

    async def inbox(self, application: str | None) -> list[Item]:
        """What waits for an application, verified, and was not delivered yet (R29, R32).

        What is not authentic, or cannot be had now, is not among it; :meth:`waiting` says so.

        :param application: None: of all of them.
        """
        return (await self.waiting(application)).items

    async def waiting(self, application: str | None) -> Listing:
        """The same, with the reasons why anything that waits is not shown."""
        check_labels(application or "")
        return await self._alone(lambda: receiving.inbox(self._device, application))

    async def fetch(
        self,
        item: Item,
        into: Path | None = None,
        *,
        confirm: bool = False,
        progress: Progress = lambda done, length: None,
    ) -> Path:
        """Download an item; the file is there only when all of it was verified (R30).

        After a cut, the same call goes on where it was.

        :param into: the file; None: one in ``received/`` of the state directory.
        :param confirm: have the sender told, in the background, once it is there (R32).
        :param progress: hears of bytes that are there, of how many.
        :return: the file.
        :raises AlreadyExists: the file exists, or the item was delivered before (R32).
        :raises AuthenticationError: what the CS gives is not what the sender signed.
        """
        place = self.spool.place(item.object) if into is None else into
        path = await receiving.fetch(self._device, item, place, progress, confirm=confirm)
        if confirm:
            self._background.wake()
        return path

    async def confirm(self, item: Item) -> None:
        """Tell the sender, under signature, that an item is here (R32).

        Where that fails it is done in the background.

        :raises NoSuchItem: it was not fetched.
        """
        await receiving.confirm(self._device, item)

    def received(self, beginning: str) -> Sequence[Path]:
        """The files of items that were fetched, whose identifiers begin so, in hex."""
        whole = beginning[: len(beginning) // 2 * 2].lower()
        try:
            return self._store.received_names(bytes.fromhex(whole)) if whole else ()
        except ValueError:
            return ()

    def waiting_confirmations(self) -> list[Item]:
        """Fetched items whose senders are still to be told."""
        return self._store.to_confirm()

    async def _alone(self, work: Callable[[], Awaitable[_T]]) -> _T:
        await self._lock.acquire()
        try:
            return await work()
        finally:
            self._lock.release()
