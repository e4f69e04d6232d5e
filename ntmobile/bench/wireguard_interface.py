"""``python -m ntmobile.bench.wireguard_interface``: run a wireguard-go, and configure it.

It has its configuration socket in ``/var/run``, which belongs to root; so it gets a ``/run`` of its
own, in a mount namespace, and is configured from there. Run with all capabilities in a lab.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ntmobile.lab import kernel

_PATIENCE = 10.0


def settings(interface: dict[str, Any]) -> str:
    """The text of a ``set`` of the configuration protocol; keys are in hexadecimal."""
    lines = {
        "private_key": interface["private_key"],
        "listen_port": interface["port"],
        "replace_peers": "true",
        "public_key": interface["peer_key"],
        "endpoint": interface["peer"],
        "allowed_ip": interface["peer_network"],
    }
    return "set=1\n" + "".join(f"{key}={value}\n" for key, value in lines.items()) + "\n"


def configure(path: Path, text: str) -> None:
    """Send a ``set`` as soon as there is somebody to take it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(str(path))
                control.sendall(text.encode())
                answer = control.recv(4096).decode()
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        if answer.strip() != "errno=0":
            raise RuntimeError(f"{path}: {answer.strip()}")
        return


def main() -> None:
    """Run it: the program and a JSON file with the interface."""
    program, file = sys.argv[1:]
    interface = json.loads(Path(file).read_text(encoding="utf-8"))
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("tmpfs", "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)
    environment = {**os.environ, "LOG_LEVEL": "error"}
    running = subprocess.Popen([program, "-f", interface["name"]], env=environment)
    signal.signal(signal.SIGTERM, lambda number, frame: running.terminate())
    try:
        configure(Path("/run/wireguard") / f"{interface['name']}.sock", settings(interface))
    except BaseException:
        running.kill()
        raise
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.exit(running.wait())


if __name__ == "__main__":
    main()
