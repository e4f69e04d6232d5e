"""How a client shows its correspondents to applications (design, section 6; rule R24).

A correspondent's virtual IPv6 address is certified and unique. Its virtual IPv4 address need only
be unique here: where it collides with our own, with another's, or with a network we are in, it is
shown under another free address, and packets are translated at this end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Final

from attrs import define, field, frozen

from ntmobile.errors import CertificateError, MalformedMessage, QuotaExceeded
from ntmobile.machines.tunnel.candidates import is_private
from ntmobile.wire import virtual
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.packet import Buffer
from ntmobile.wire.readdressing import rewrite

#: Correspondents remembered beyond the life of their tunnels.
CAPACITY: Final = 4096
#: Where others are shown that cannot be shown as they are certified, the first that is free.
POOLS: Final = (virtual.POOL, IPv4Network("100.64.0.0/10"), IPv4Network("10.0.0.0/8"))


@frozen
class Shown:
    """A correspondent as applications see it.

    :ivar certified: its own virtual IPv4 address. :ivar ipv4: the one shown here.
    """

    fqdn: str
    ipv6: IPv6Address
    certified: IPv4Address
    ipv4: IPv4Address


@define
class ShownAddresses:
    """The table of correspondents, by name and by shown address.

    :ivar ipv6: :ivar ipv4: our own virtual addresses.
    :ivar networks: IPv4 networks that this client is in; nobody is shown inside them.
    """

    ipv6: IPv6Address
    ipv4: IPv4Address
    networks: tuple[IPv4Network, ...] = ()
    _by_name: OrderedDict[str, Shown] = field(factory=OrderedDict, init=False)
    _by_address: dict[bytes, Shown] = field(factory=dict, init=False)

    def learn(self, certificate: DeviceCertificate) -> Shown:
        """A correspondent's certificate, verified: show it, the same way as before if possible.

        :raises QuotaExceeded: no address is free.
        :raises CertificateError: its IPv6 address is our own, or another correspondent's.
        """
        self._check_ipv6(certificate)
        known = self._by_name.get(certificate.fqdn)
        if known is not None and (known.ipv6, known.certified) == (
            certificate.ipv6,
            certificate.ipv4,
        ):
            self._by_name.move_to_end(known.fqdn)
            return known
        if known is not None:
            self._forget(known)
        shown = Shown(
            certificate.fqdn,
            certificate.ipv6,
            certificate.ipv4,
            self._free(certificate.fqdn, certificate.ipv4),
        )
        self._insert(shown)
        return shown

    def _check_ipv6(self, certificate: DeviceCertificate) -> None:
        """Nobody takes over the address under which applications know somebody else.

        A DC assigns its devices' addresses. Could it give one twice, then an accomplice's tunnel
        would get what is meant for a device whose identity is pinned.
        """
        other = self._by_address.get(certificate.ipv6.packed)
        taken = None if other is None or other.fqdn == certificate.fqdn else other.fqdn
        if certificate.ipv6 == self.ipv6:
            taken = "this device"
        if taken is not None:
            raise CertificateError(
                f"{certificate.fqdn} is certified with {certificate.ipv6}, the virtual address of "
                f"{taken}; its coordinator may be dishonest"
            )

    def set_networks(self, networks: Iterable[IPv4Network]) -> list[str]:
        """The client is in these networks now; who is shown inside one is shown anew.

        :return: names whose shown address changed.
        """
        self.networks = tuple(networks)
        moved = []
        for shown in [one for one in self._by_name.values() if self._inside(one.ipv4)]:
            self._forget(shown)
            try:
                address = self._free(shown.fqdn, shown.certified)
            except QuotaExceeded:
                address = shown.ipv4  # better there than not at all
            fresh = Shown(shown.fqdn, shown.ipv6, shown.certified, address)
            self._insert(fresh)
            moved.append(fresh.fqdn)
        return moved

    @property
    def remembered(self) -> tuple[Shown, ...]:
        """All correspondents, the one learnt last at the end; for :meth:`restore`."""
        return tuple(self._by_name.values())

    def restore(self, remembered: Iterable[Shown]) -> None:
        """Show correspondents as an earlier agent did, where nothing is in the way.

        Programs still use these addresses. The next certificate of each decides anew.
        """
        for shown in remembered:
            taken = shown.fqdn in self._by_name or shown.ipv6.packed in self._by_address
            if not taken and shown.ipv6 != self.ipv6 and shown.ipv4 not in self:
                self._insert(shown)

    def _insert(self, shown: Shown) -> None:
        self._by_name[shown.fqdn] = shown
        self._by_address[shown.ipv6.packed] = shown
        self._by_address[shown.ipv4.packed] = shown
        while len(self._by_name) > CAPACITY:
            self._forget(next(iter(self._by_name.values())))

    def of(self, fqdn: str) -> Shown | None:
        """How a device is shown, if it ever was."""
        return self._by_name.get(fqdn)

    def at(self, packed: bytes) -> Shown | None:
        """Who is shown under an address of 4 or 16 bytes."""
        return self._by_address.get(packed)

    def outbound(self, packet: Buffer, partial: bool = False) -> tuple[str, Buffer] | None:
        """A packet of an application: to whom, and as the correspondent knows itself.

        None where it goes to nobody we know. :raises MalformedMessage: it is no packet.

        :param partial: its checksum covers the pseudo header only.
        """
        if len(packet) >= 40 and packet[0] >> 4 == 6:
            shown = self._by_address.get(bytes(packet[24:40]))
            return None if shown is None else (shown.fqdn, packet)
        if len(packet) >= 20 and packet[0] >> 4 == 4:
            shown = self._by_address.get(bytes(packet[16:20]))
            if shown is None:
                return None
            if shown.ipv4 != shown.certified:
                packet = rewrite(packet, destination=shown.certified.packed, partial=partial)
            return shown.fqdn, packet
        raise MalformedMessage("not an IP packet")

    def inbound(self, fqdn: str, packet: Buffer, partial: bool = False) -> Buffer | None:
        """A correspondent's packet, as applications shall see it; None where it cannot be shown."""
        shown = self._by_name.get(fqdn)
        if shown is None:
            return None
        if packet[:1] and packet[0] >> 4 == 4 and shown.ipv4 != shown.certified:
            try:
                return rewrite(packet, source=shown.ipv4.packed, partial=partial)
            except MalformedMessage:
                return None
        return packet

    def _inside(self, address: IPv4Address) -> bool:
        return any(address in network for network in self.networks)

    def _free(self, fqdn: str, wanted: IPv4Address) -> IPv4Address:
        # A foreign realm may certify what it likes, but takes no address of the internet's here.
        if wanted not in self and (wanted in virtual.POOL or is_private(str(wanted))):
            return wanted
        for pool in POOLS:
            if not any(pool.subnet_of(network) for network in self.networks):
                return virtual.pick_ipv4(pool, fqdn, self)
        raise QuotaExceeded(f"no IPv4 address is free to show {fqdn} under")

    def __contains__(self, address: object) -> bool:
        """Whether an IPv4 address is taken here."""
        return isinstance(address, IPv4Address) and (
            address == self.ipv4 or address.packed in self._by_address or self._inside(address)
        )

    def _forget(self, shown: Shown) -> None:
        del self._by_name[shown.fqdn]
        for address in (shown.ipv6.packed, shown.ipv4.packed):
            if self._by_address.get(address) is shown:
                del self._by_address[address]
