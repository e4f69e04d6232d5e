"""The keys of a tunnel's session: epochs, and which of them are open (R19, R20, R21)."""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ntmobile.machines.tunnel.constants import EPOCH_OVERLAP
from ntmobile.machines.tunnel.noise import Secrets
from ntmobile.wire.headers import HEADER, HEADER_SIZE, TAG_SIZE, Flag, Kind
from ntmobile.wire.packet import Buffer
from ntmobile.wire.replay import ReplayWindow
from ntmobile.wire.sealing import COUNTER_LIMIT, derive

#: Key epochs are told apart by two bits of the header.
EPOCHS: Final = 4
_DATA: Final = int(Kind.TUNNEL_DATA)
_EPOCH: Final = int(Flag.EPOCH)
_ZEROS: Final = bytes(4)
_NONCE: Final = struct.Struct("!IQ")
#: Of a datagram's header: kind, flags and reserved bytes together, index, counter.
_HEAD: Final = struct.Struct("!IQQ")
_LEAST: Final = HEADER_SIZE + TAG_SIZE


class Epoch:
    """The keys of both ways from one handshake, with counter and replay window.

    The ciphers are kept, because this is the hot path of the data.

    :ivar number: counts epochs of a session from 0; modulo four in the header.
    :ivar born: when it was made. :ivar counter: of the next datagram sealed.
    :ivar window: counters received. :ivar proven: something was received under it.
    :ivar export: pre-shared key of the next epoch's handshake (R20).
    :ivar binding: handshake hash, bound into that handshake.
    """

    __slots__ = (
        "_opening",
        "_sealing",
        "binding",
        "bits",
        "born",
        "counter",
        "export",
        "number",
        "proven",
        "window",
    )

    def __init__(self, number: int, secrets: Secrets, now: float) -> None:
        self.number = number
        self.bits = number % EPOCHS
        self.born = now
        self.counter = 0
        self.window = ReplayWindow()
        self.proven = False
        self.binding = secrets.handshake_hash
        self.export = derive(secrets.chaining_key, self.binding, "ntm1 tunnel rekey")
        self._sealing = AESGCM(secrets.sending)
        self._opening = AESGCM(secrets.receiving)

    def seal(self, flags: int, index: bytes, plaintext: Buffer) -> bytes:
        """A whole TUNNEL_DATA datagram under the next counter."""
        counter = self.counter
        self.counter = counter + 1
        head = HEADER.pack(_DATA, flags | self.bits, 0, index, counter)
        return head + self._sealing.encrypt(_ZEROS + head[12:], plaintext, head)

    def seal_run(self, run: memoryview, segment: int, flags: int, index: bytes) -> None:
        """Seal inner packets where they stand in datagrams of ``segment`` bytes, the last shorter.

        Each has 20 bytes before it, for the header, and 16 behind it, for the tag.
        """
        seal, nonce, write = self._sealing.encrypt_into, _NONCE.pack, HEADER.pack_into
        flags |= self.bits
        counter, end = self.counter, len(run)
        for at in range(0, end, segment):
            write(run, at, _DATA, flags, 0, index, counter)
            body, behind = at + HEADER_SIZE, at + segment
            if behind > end:
                behind = end
            seal(
                nonce(0, counter),
                run[body : behind - TAG_SIZE],
                run[at:body],
                run[body:behind],
            )
            counter += 1
        self.counter = counter

    def open_run(
        self, run: memoryview, at: int, segment: int, plain: memoryview
    ) -> tuple[int, list[memoryview]]:
        """Open datagrams of ``segment`` bytes, the last shorter, into the same places of ``plain``.

        From ``at`` on, as long as they are of one kind, flags and index, authentic, and newer than
        all before; what is not is for :meth:`open`, which tells why. They are marked as seen.

        :return: where this ends, and the inner packets.
        """
        head = _HEAD.unpack_from
        first, index, counter = head(run, at)
        window = self.window
        end = len(run)
        opened: list[memoryview] = []
        start = last = counter - 1
        if counter <= window.highest:
            return at, opened
        decrypt, nonce = self._opening.decrypt_into, _NONCE.pack
        while at < end:
            behind = at + segment
            if behind > end:
                behind = end
                if behind - at < _LEAST:
                    break
            kind, tunnel, counter = head(run, at)
            if kind != first or tunnel != index or counter <= last or counter >= COUNTER_LIMIT:
                break
            body = at + HEADER_SIZE
            packet = plain[body : behind - TAG_SIZE]
            try:
                decrypt(nonce(0, counter), run[body:behind], run[at:body], packet)
            except (InvalidTag, ValueError):
                break
            if counter != last + 1:
                window.mark_run(start + 1, last - start)
                start = counter - 1
            last = counter
            opened.append(packet)
            at = behind
        if opened:
            window.mark_run(start + 1, last - start)
            self.proven = True
        return at, opened

    def open(self, datagram: bytes, counter: int) -> bytes | None:
        """The plaintext of a datagram whose header has this counter.

        ``None`` where it is a replay, too old (R21) or not authentic. It is marked as seen.
        """
        if not self.window.acceptable(counter) or counter >= COUNTER_LIMIT:
            return None
        head = datagram[:HEADER_SIZE]
        try:
            plaintext = self._opening.decrypt(_ZEROS + head[12:], datagram[HEADER_SIZE:], head)
        except (InvalidTag, ValueError):
            return None
        self.window.mark(counter)
        self.proven = True
        return plaintext


class KeyRing:
    """The open epochs of a session: one to seal with, up to two more to open with.

    :ivar current: what is sealed with; None at a responder that has received nothing yet.
    :ivar upcoming: made as responder: opens, but seals nothing before it opened something (R19).
    """

    __slots__ = ("_slots", "closes", "current", "previous", "upcoming")

    def __init__(self, first: Epoch, *, initiator: bool) -> None:
        self.current: Epoch | None = first if initiator else None
        self.upcoming: Epoch | None = None if initiator else first
        self.previous: Epoch | None = None
        self.closes: float | None = None
        self._slots: list[Epoch | None] = [None] * EPOCHS
        self._arrange()

    @property
    def current_proven(self) -> bool:
        """Something came under the epoch that is sealed with: the other side has it."""
        return self.current is not None and self.current.proven

    def opening(self, flags: int) -> Epoch | None:
        """The epoch that a header's flags name, if it is open."""
        return self._slots[flags & _EPOCH]

    def adopt(self, epoch: Epoch, now: float) -> None:
        """Seal with a new epoch from now on, as its initiator; the old one stays open for 10 s."""
        self._turn(epoch, now)

    def propose(self, epoch: Epoch) -> None:
        """Open with a new epoch, as its responder; one that was never used gives way."""
        self.upcoming = epoch
        self.previous, self.closes = None, None
        self._arrange()

    def opened(self, epoch: Epoch, now: float) -> bool:
        """Something was opened under ``epoch``; ``True`` if it is what is sealed with from now."""
        if epoch is not self.upcoming:
            return False
        self._turn(epoch, now)
        return True

    def expire(self, now: float) -> None:
        """Close the former epoch when its time is over, and the new one has proven itself."""
        if self.closes is not None and now >= self.closes and self.current_proven:
            self.previous, self.closes = None, None
            self._arrange()

    def _turn(self, epoch: Epoch, now: float) -> None:
        self.previous = self.current
        self.closes = now + EPOCH_OVERLAP if self.previous is not None else None
        self.current, self.upcoming = epoch, None
        self._arrange()

    def _arrange(self) -> None:
        self._slots = [None] * EPOCHS
        for epoch in (self.previous, self.upcoming, self.current):
            if epoch is not None:
                self._slots[epoch.bits] = epoch
