"""Joins two TUN devices as a tunnel does: large packets are cut, and what arrives is joined.

``carrier.py lend PATH`` opens the device of its network and gives it away over a Unix socket.
``carrier.py carry PATH SIZE BAD`` opens another and carries packets of at most SIZE bytes between
the two until SIGTERM, of which a share of BAD is lost, comes twice, or comes late; then it prints
a JSON report of what there was to cut and what it joined.
"""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter
from random import Random
from typing import Any

from twisted.internet import reactor as installed

from ntmobile.plugins import linux
from ntmobile.plugins.tun_device import TunDevice
from ntmobile.wire.coalescing import Coalescer
from ntmobile.wire.offload import VIRTIO_SIZE, GsoKind, Offload
from ntmobile.wire.packet import Buffer
from ntmobile.wire.segmentation import Segmentation

reactor: Any = installed

NAME = "ntm0"


class Way:
    """One direction.

    :param size: the most bytes of one packet. :param bad: the share that has bad luck.
    """

    def __init__(self, size: int, bad: float) -> None:
        self.cut: Counter[str] = Counter()
        self.joined: Counter[str] = Counter()
        self.to: TunDevice
        self._size = size
        self._bad = bad
        self._random = Random(size)
        self._coalescer = Coalescer()
        self._late: list[tuple[bytes, bool]] = []
        self._flushing = False

    def receive(self, packet: Buffer, offload: Offload | None) -> None:
        """Take a packet of the kernel's."""
        partial = offload is not None and offload.partial
        if offload is None or (offload.kind is GsoKind.NONE and len(packet) <= self._size):
            self._carry(bytes(packet), partial)
        else:
            self.cut[offload.kind.name] += 1
            segmentation = Segmentation(packet, offload, self._size)
            for number in range(segmentation.count):
                room = bytearray(segmentation.length)
                self._carry(bytes(room[: segmentation.write(number, room, 0)]), partial)
        if not self._flushing:
            self._flushing = True
            reactor.callLater(0, self.flush)

    def _carry(self, piece: bytes, partial: bool) -> None:
        luck = self._random.random()
        if luck < self._bad / 3:
            return
        if luck < self._bad * 2 / 3:
            self._late.append((piece, partial))
            return
        for _ in range(2 if luck < self._bad else 1):
            self._coalescer.add(memoryview(piece), partial)
        while self._late and self._random.random() < 0.2:
            late, partial = self._late.pop()
            self._coalescer.add(memoryview(late), partial)

    def flush(self) -> None:
        """Hand over what came together."""
        self._flushing = False
        for parts, offload in self._coalescer.drain():
            if offload is not None and offload.kind:
                self.joined[offload.kind.name] += 1
            self.to.send_parts(parts, offload)


def lend(path: str) -> None:
    """Open a device and give it away."""
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(path)
        socket.send_fds(there, [b"x"], [linux.open_tun(NAME)])


def carry(path: str, size: int, bad: float) -> None:
    """Carry packets until SIGTERM."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        connection, _ = listener.accept()
    with connection:
        _, [lent], _, _ = socket.recv_fds(connection, 1, 1)
    descriptors = linux.open_tun(NAME), lent
    offered = linux.offload_tun(lent, VIRTIO_SIZE) or 0
    ways = Way(size, bad), Way(size, bad)
    devices = [
        TunDevice(reactor, descriptor, way.receive, print)
        for descriptor, way in zip(descriptors, ways, strict=True)
    ]
    for way, device in zip(ways, reversed(devices), strict=True):
        way.to = device
    print("carrying", flush=True)
    reactor.run()
    report = {
        "datagrams": bool(offered & linux.DATAGRAMS),
        "refused": sum(device.traffic.dropped for device in devices),
        "cut": [way.cut for way in ways],
        "joined": [way.joined for way in ways],
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "lend":
        lend(sys.argv[2])
    else:
        carry(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
