"""The device lists that an AS signs (rule R5)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from attrs import define

from ntmobile.interfaces import Device, IAccountStore, User
from ntmobile.servers.authority import Signer
from ntmobile.servers.workers import Workers
from ntmobile.wire.certificates import key_id
from ntmobile.wire.messages.account import (
    DeviceList,
    IdentityResponse,
    ListedDevice,
    devices_statement,
)
from ntmobile.wire.messages.realtime import Outcome


@define(eq=False)
class DeviceLists:
    """Makes the signed lists of users' devices.

    :ivar sign: the device-CA. :ivar unix_time: wall clock.
    """

    store: IAccountStore
    storage: Workers
    sign: Signer
    unix_time: Callable[[], float]

    async def of(self, user: str) -> IdentityResponse:
        """The list of a user such as ``alice.dc1.ntm.example``, with the devices' certificates.

        A user who is unknown, disabled or has no device is answered alike: unknown.
        """
        found, devices = await self.storage.run(self._read, user)
        if found is None or found.disabled or not devices:
            return IdentityResponse(Outcome.UNKNOWN)
        issued = int(self.unix_time() * 1000)
        listed = tuple(_listed(device) for device in devices)
        signed = msgspec.msgpack.encode(DeviceList(user, found.version, issued, listed))
        return IdentityResponse(
            Outcome.OK,
            signed,
            self.sign.key.sign(devices_statement(signed)),
            key_id(self.sign.key.public_key().public_bytes_raw()),
            tuple(device.certificate.der for device in devices),
        )

    def _read(self, user: str) -> tuple[User | None, list[Device]]:
        """In the store's thread: the version first, so that a list is never newer than it says."""
        found: User | None = self.store.user(user)
        devices = [] if found is None else self.store.devices(user)
        return found, [device for device in devices if not device.removed]


def _listed(device: Device) -> ListedDevice:
    certificate = device.certificate
    serial = certificate.serial
    return ListedDevice(
        device.fqdn,
        serial.to_bytes((serial.bit_length() + 7) // 8, "big"),
        certificate.identity,
        certificate.xwing_hash,
        device.former,
        device.succession,
    )
