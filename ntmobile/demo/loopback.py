"""The demo where the system allows no namespaces: all on loopback, devices with a node inside."""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

from attrs import define, field
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime

from ntmobile.demo.counting import Counting
from ntmobile.demo.platform import CN, DC_CN, DC_MN, Platform, Site
from ntmobile.demo.program import LocalPlace, LocalProgram, Place
from ntmobile.demo.world import COUNTER_PORT, Act
from ntmobile.lab.node import remove_tree

HOST: Final = "127.0.0.1"


@define(eq=False)
class LoopbackWorld:
    """This machine's loopback; see :class:`ntmobile.demo.world.World`."""

    place: LocalPlace
    networks: str = "free ports on loopback, the static lookup in place of DNS"
    acts: tuple[Act, Act, Act, Act] = (
        Act(
            "Two programs log in as phone and as laptop, and register where they are",
            "They embed the library, and have UDP on virtual addresses inside (the attachment "
            '"datagram").',
        ),
        Act(
            "A program on the phone sends datagrams to laptop.bob.dc2.ntm.example",
            "Both are on this machine without a NAT between them, so they talk directly.",
        ),
        Act(
            "The phone gets another address",
            "An address on loopback is 127.0.0.1 and a port, so the phone takes another port.",
        ),
        Act(
            "Both get another address at the same moment",
            "Neither knows where the other is; their coordinators do.",
        ),
    )
    _devices: dict[str, LocalProgram] = field(factory=dict)

    @classmethod
    def make(cls, reactor: ReactorBase) -> LoopbackWorld:
        """Make a directory; nothing runs yet."""
        directory = Path(tempfile.mkdtemp(prefix="ntmdemo-"))
        return cls(LocalPlace(directory, IReactorTime(reactor)))

    async def build(self) -> Platform:
        """See :class:`~ntmobile.demo.world.World`."""
        names = ("as", "dc1", "dc2", "rs1", "cs1")
        *ports, dns1, dns2 = free_ports(len(names) + 2)
        sites = {
            name: Site((HOST,), port, {"dc1": dns1, "dc2": dns2}.get(name, 53))
            for name, port in zip(names, ports, strict=True)
        }
        places: dict[str, Place] = dict.fromkeys((*names, "phone", "laptop"), self.place)
        table = "".join(
            f'"{domain}" = ["{HOST}:{sites[name].port}"]\n'
            for name, domain in (("dc1", DC_MN), ("dc2", DC_CN))
        )
        lookup = f'[lookup]\nplugin = "static"\n[lookup.coordinators]\n{table}'
        return Platform(
            self.place.directory,
            places,
            sites,
            lookup,
            settings='\n[attachment]\nplugin = "datagram"\n',
            told_dc=True,
        )

    async def start_devices(self, platform: Platform) -> None:
        """See :class:`~ntmobile.demo.world.World`."""
        port = str(COUNTER_PORT)
        for device, words in (("laptop", ["serve", port]), ("phone", ["count", CN, port])):
            module = [sys.executable, "-m", "ntmobile.demo.programs.device"]
            await platform.start(device, [*module, str(platform.state(device)), *words])
        for device in ("laptop", "phone"):
            program = platform.services[device]
            await program.wait_for("^ready$", timeout=30)
            assert isinstance(program, LocalProgram)
            self._devices[device] = program

    async def start_counting(self, platform: Platform) -> Counting:
        """See :class:`~ntmobile.demo.world.World`."""
        phone = self._devices["phone"]
        phone.signal(signal.SIGUSR2)
        await phone.wait_for("^1 ", timeout=30)
        return Counting(self._devices["laptop"], phone, "UDP")

    async def move_phone(self) -> None:
        """See :class:`~ntmobile.demo.world.World`."""
        self._devices["phone"].signal(signal.SIGUSR1)

    async def move_both(self) -> None:
        """See :class:`~ntmobile.demo.world.World`."""
        for device in self._devices.values():
            device.signal(signal.SIGUSR1)

    async def switch_off(self, platform: Platform) -> None:
        """See :class:`~ntmobile.demo.world.World`."""
        for device in ("phone", "laptop"):
            await platform.stop(device)
        await platform.start_agents("phone")

    def close(self, *, keep: bool) -> Path | None:
        """See :class:`~ntmobile.demo.world.World`."""
        self.place.close()
        if keep:
            return self.place.directory
        remove_tree(self.place.directory)
        return None


def free_ports(count: int) -> list[int]:
    """Ports that are free for TCP and UDP at this moment."""
    held: list[socket.socket] = []
    found: list[int] = []
    try:
        while len(found) < count:
            stream = socket.socket()
            datagram = socket.socket(type=socket.SOCK_DGRAM)
            held += [stream, datagram]
            stream.bind((HOST, 0))
            port = int(stream.getsockname()[1])
            try:
                datagram.bind((HOST, port))
            except OSError:
                continue
            found.append(port)
    finally:
        for one in held:
            one.close()
    return found
