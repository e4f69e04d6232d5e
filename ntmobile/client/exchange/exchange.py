"""Sending and receiving stored data, on coroutines (paper, figures 3 and 4).

::

    object = await exchange.send([fqdn], Path("letter"), application="mail")
    for item in await exchange.inbox("mail"):
        await exchange.fetch(item, Path("inbox") / "letter")
        await exchange.confirm(item)
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ntmobile.client.exchange import receiving, sending
from ntmobile.client.exchange.asking import Session
from ntmobile.client.exchange.device import Device
from ntmobile.client.exchange.items import Item, Outgoing, Status
from ntmobile.client.exchange.store import ExchangeStore
from ntmobile.client.pins import PinStore
from ntmobile.errors import NTMobileError
from ntmobile.machines.exchange.manifests import Address
from ntmobile.machines.exchange.signing import SKEW
from ntmobile.machines.identities import Devices

log = Logger()
_T = TypeVar("_T")

#: Seconds for which an item waits, where nothing else is said.
LIFETIME: Final = 14 * 86400
#: Seconds between two looks whether a pre-key is due.
LOOK: Final = 3600.0


class Exchange:
    """The stored data of one device.

    :param session: the session of the latest login; raises :class:`NotRegistered` without one.
    :param store: kept in the state directory. :param pins: of correspondents, as for tunnels.
    :param ask_devices: gets a user's verified device list, for successions (R5).
    :param wall: unix seconds of this device.
    """

    def __init__(
        self,
        reactor: Any,
        session: Callable[[], Session],
        store: ExchangeStore,
        pins: PinStore,
        ask_devices: Callable[[str], Awaitable[Devices]] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._device = Device(reactor, session, store, pins, ask_devices, wall)
        self._lock = DeferredLock()
        self._look: IDelayedCall | None = None
        self._started = False

    # -- life

    def start(self) -> None:
        """Publish pre-keys now and weekly, for as long as it runs."""
        self._started = True
        Deferred.fromCoroutine(self._keep_published())

    def stop(self) -> None:
        """Publish no more."""
        self._started = False
        if self._look is not None and self._look.active():
            self._look.cancel()
        self._look = None

    async def _keep_published(self) -> None:
        try:
            await self.publish()
        except NTMobileError as problem:
            log.warn("no pre-key was published: {problem}", problem=str(problem))
        except Exception:
            log.failure("publishing a pre-key failed")
        if self._started:
            self._look = self._reactor.callLater(
                LOOK, lambda: Deferred.fromCoroutine(self._keep_published())
            )

    async def publish(self) -> None:
        """Make a pre-key where one is due, and publish what the DC may not have (R31)."""
        self._store.forget(self._device.now() - SKEW)
        await self._alone(lambda: receiving.publish(self._device))

    # -- the sender's side

    async def send(
        self,
        destinations: Sequence[str],
        source: Path,
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
        """Send a file to devices that may be off; after a cut, :meth:`resume` goes on.

        :param name: by default the file's. :param type: a media type. :param note: for receivers;
            these three are sealed. :param message: the notification, which servers read (R33).
        :param lifetime: seconds, at most 30 days.
        :return: the object's identifier.
        :raises NTMobileError: it is not stored, or a destination is not trusted or cannot be asked.
        """
        address = Address(tuple(destinations), application, service, item, message)
        texts = source.name if name is None else name, type, note
        outgoing = await self._alone(
            lambda: sending.announce(self._device, address, source, texts, lifetime)
        )
        await sending.upload(self._device, outgoing)
        return outgoing.object

    async def resume(self, object: bytes) -> None:
        """Go on with an upload that was cut.

        :raises ContentChanged: the file changed since; send it anew (R30).
        """
        await sending.upload(self._device, sending.find(self._device, object))

    def outgoing(self) -> list[Outgoing]:
        """What was sent, or is to be."""
        return self._store.outgoing()

    async def status(self, object: bytes) -> tuple[Status, ...]:
        """How far an object has come; each confirmation is verified (R32).

        :raises AuthenticationError: a confirmation is not the receiver's.
        """
        return await sending.status(self._device, object)

    # -- the receiver's side

    async def inbox(self, application: str) -> list[Item]:
        """What waits for an application, verified, and was not delivered yet (R29, R32).

        What is not authentic, or whose key has not come yet, is not shown.
        """
        return await self._alone(lambda: receiving.inbox(self._device, application))

    async def fetch(self, item: Item, into: Path) -> None:
        """Download an item; the file is there only when all of it was verified (R30).

        After a cut, the same call goes on where it was.

        :raises AlreadyExists: the file exists, or the item was delivered before (R32).
        :raises AuthenticationError: what the CS gives is not what the sender signed.
        """
        await receiving.fetch(self._device, item, into)

    async def confirm(self, item: Item) -> None:
        """Tell the sender, under signature, that an item is here (R32).

        :raises NoSuchItem: it was not fetched.
        """
        await receiving.confirm(self._device, item)

    async def _alone(self, work: Callable[[], Awaitable[_T]]) -> _T:
        await self._lock.acquire()
        try:
            return await work()
        finally:
            self._lock.release()
