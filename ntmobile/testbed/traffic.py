"""Ordinary programs of two devices that talk over the virtual network: ping, iperf3, ssh."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import define, field, frozen

from ntmobile.lab.process import Process
from ntmobile.lab.supervision import LabError
from ntmobile.testbed.device import Device

_SSHD = """
Port 2222
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
PidFile none
UsePAM no
StrictModes no
"""


async def ping(
    device: Device,
    target: str,
    *options: str,
    count: int = 1,
    timeout: float = 10.0,
    lossy: bool = False,
) -> list[float]:
    """Ping from inside; gives the round trips in milliseconds.

    :param lossy: pings may be lost; else every one must be answered.
    """
    argv = ["ping", "-n", f"-c{count}", "-i0.2", f"-W{timeout:.0f}", *options, target]
    done = await device.run(argv, check=False, timeout=timeout + count)
    rtts = [float(ms) for ms in re.findall(r"time=([\d.]+) ms", done.stdout)]
    if not lossy and (done.status != 0 or len(rtts) != count):
        raise LabError(f"{device.fqdn}: ping {target}: {done.stdout}{done.stderr}")
    return rtts


@frozen
class Flow:
    """What the receiver of iperf3 counted."""

    bytes: int
    bits_per_second: float


@define(eq=False)
class Servers:
    """Programs that serve inside the virtual networks for as long as the platform stands."""

    _iperf: dict[Device, Process] = field(factory=dict)

    async def iperf(
        self, client: Device, server: Device, *options: str, amount: str = "1M"
    ) -> Flow:
        """Fetch an amount over TCP, by name.

        (Where the client sends, it ends as soon as the amount is in its own buffers.)
        """
        serving = self._iperf.get(server)
        if serving is None or await serving.status() is not None:
            argv = ["iperf3", "--server", "--forceflush"]
            serving = await server.spawn(argv, "iperf3-server", standing=True)
            await serving.wait_for("Server listening")
            self._iperf[server] = serving
        argv = ["iperf3", "--json", "--reverse", "-c", server.fqdn, "-n", amount, *options]
        done = await client.run(argv, check=False, timeout=20)
        report = done.json()
        if done.status != 0 or "error" in report:
            raise LabError(f"iperf3: {report.get('error')}\n{serving.tail()}")
        end = report["end"]["sum_received"]
        return Flow(end["bytes"], end["bits_per_second"])


async def start_sshd(device: Device) -> None:
    """Start sshd inside, as the device's own ordinary user, on port 2222."""
    directory = device.host.home / "ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    for key in ("host_key", "user_key"):
        if not (directory / key).exists():
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)]
            await device.host.run(argv)
    (directory / "config").write_text(_SSHD.format(directory=directory))
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "config")]
    sshd = await device.spawn(argv, "sshd")
    await sshd.wait_for("Server listening")


def ssh(server: Device, command: Sequence[str]) -> list[str]:
    """The command line that runs a command on a device that :func:`start_sshd` was called for."""
    directory = server.host.home / "ssh"
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    argv = ["ssh", "-p", "2222", "-i", str(directory / "user_key"), "-l", "lab"]
    return [*argv, *(f"-o{option}" for option in options), server.fqdn, *command]
