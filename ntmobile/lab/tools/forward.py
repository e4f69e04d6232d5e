"""Forward frames between two interfaces with delay, loss, duplication, reordering and a rate.

Usage: ``forward.py SETTINGS.json NEAR FAR``. The settings (those of
:class:`ntmobile.lab.forwarder.Impairment`) are read at start and on SIGHUP; ``settings N`` is
printed for the N-th reading. On SIGTERM the counts are printed as JSON. It stands in for
``tc netem``, which kernels often lack.
"""

from __future__ import annotations

import gc
import heapq
import json
import random
import select
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_PROMISC = 1
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23

#: The virtio header before each frame carries what a veth leaves undone (checksums), so that
#: a frame goes out just as it came in.
HEADER = 10
FRAME = 1 << 17
#: Frames taken from one side before the other gets its turn.
BATCH = 64


def packet_socket(interface: str) -> socket.socket:
    """Open an interface for whole frames, both those to others and those to itself."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    opened.bind((interface, ETH_P_ALL))
    index = socket.if_nametoindex(interface)
    request = index.to_bytes(4, sys.byteorder) + PACKET_MR_PROMISC.to_bytes(2, sys.byteorder)
    opened.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request + bytes(10))
    opened.setblocking(False)
    return opened


class Forwarder:
    """Two sockets and the frames on their way between them, ordered by the time they are due."""

    def __init__(self, path: Path, near: str, far: str) -> None:
        self._path = path
        self._sockets = [packet_socket(near), packet_socket(far)]
        self._heap: list[tuple[float, int, int, bytes]] = []
        self._waiting = [0, 0]
        self._free_at = [0.0, 0.0]
        self._taken = 0
        self._readings = 0
        self._running = True
        self.counts = dict.fromkeys(("forwarded", "lost", "overflowed", "refused"), 0)

    def load(self) -> None:
        """Read the settings."""
        self._settings: dict[str, Any] = json.loads(self._path.read_text())
        self._random = random.Random(self._settings["seed"])
        self._readings += 1
        print(f"settings {self._readings}", flush=True)

    def stop(self) -> None:
        """Leave :meth:`run` soon."""
        self._running = False

    def _take(self, side: int, frame: bytes, now: float) -> None:
        """Decide the fate of a frame that came in on one side."""
        settings, chance = self._settings, self._random.random
        if chance() < settings["loss"]:
            self.counts["lost"] += 1
            return
        if self._waiting[side] >= settings["queue"]:
            self.counts["overflowed"] += 1
            return
        due = now + settings["delay"]
        if settings["rate"]:
            bits = (len(frame) - HEADER) * 8
            self._free_at[side] = max(now, self._free_at[side]) + bits / settings["rate"]
            due = self._free_at[side] + settings["delay"]
        if settings["jitter"]:
            due += chance() * settings["jitter"]
        if chance() < settings["reorder"]:
            due += settings["reorder_by"]
        for _ in range(2 if chance() < settings["duplicate"] else 1):
            self._taken += 1
            self._waiting[side] += 1
            heapq.heappush(self._heap, (due, self._taken, side, frame))

    def _receive(self, side: int) -> None:
        """Take what is there on one side."""
        for _ in range(BATCH):
            try:
                frame = self._sockets[side].recv(FRAME)
            except BlockingIOError:
                return
            except OSError:
                return  # the interface is down; its frames are lost as they would be
            self._take(side, frame, time.monotonic())

    def _send_due(self) -> float | None:
        """Send what is due; give the seconds until more is."""
        while self._heap:
            wait = self._heap[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, side, frame = heapq.heappop(self._heap)
            self._waiting[side] -= 1
            try:
                self._sockets[1 - side].send(frame)
                self.counts["forwarded"] += 1
            except OSError:
                self.counts["refused"] += 1
        return None

    def run(self) -> None:
        """Forward until :meth:`stop`."""
        while self._running:
            wait = self._send_due()
            readable, _, _ = select.select(self._sockets, [], [], 0.2 if wait is None else wait)
            for ready in readable:
                self._receive(self._sockets.index(ready))


def main() -> None:
    """Forward between the interfaces of the command line."""
    path, near, far = sys.argv[1:]
    forwarder = Forwarder(Path(path), near, far)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            forwarder.load()
        else:
            forwarder.stop()

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, on_signal)
    forwarder.load()
    gc.disable()  # nothing here makes cycles; no pauses please
    forwarder.run()
    print(json.dumps(forwarder.counts), flush=True)


if __name__ == "__main__":
    main()
