"""``python -m ntmobile.bench.flow``: one TCP flow, counted where it arrives, as iperf3 does it.

For what iperf3 cannot use: a proxy (SOCKS5) before the flow.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time

_CHUNK = 1 << 20


def through_proxy(proxy: int, host: str, port: int) -> socket.socket:
    """Connect through a SOCKS5 proxy on loopback (RFC 1928, without authentication)."""
    made = socket.create_connection(("127.0.0.1", proxy), 10)
    made.sendall(b"\x05\x01\x00")
    answer = made.recv(2, socket.MSG_WAITALL)
    if answer != b"\x05\x00":
        raise ConnectionError(f"the proxy answers {answer!r}")
    made.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(host) + struct.pack("!H", port))
    answer = made.recv(10, socket.MSG_WAITALL)
    if answer[1:2] != b"\x00":
        raise ConnectionError(f"the proxy cannot connect: {answer!r}")
    return made


def send(options: argparse.Namespace) -> None:
    """Send for some seconds, then close."""
    if options.proxy:
        flow = through_proxy(options.proxy, options.host, options.port)
    else:
        flow = socket.create_connection((options.host, options.port), 10)
    flow.settimeout(20)
    chunk = bytes(_CHUNK)
    deadline = time.monotonic() + options.seconds
    with flow:
        while time.monotonic() < deadline:
            flow.sendall(chunk)


def receive(options: argparse.Namespace) -> None:
    """Take one flow, and print its bytes and seconds."""
    with socket.create_server((options.host, options.port)) as listening:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        listening.settimeout(30)
        flow, _ = listening.accept()
    buffer = bytearray(_CHUNK)
    total, began, ended = 0, 0.0, 0.0
    with flow:
        flow.settimeout(20)
        while count := flow.recv_into(buffer):
            ended = time.monotonic()
            began = began or ended
            total += count
    sys.stdout.write(json.dumps({"bytes": total, "seconds": ended - began}) + "\n")


def main() -> None:
    """Send or receive."""
    parser = argparse.ArgumentParser(prog="python -m ntmobile.bench.flow")
    parser.add_argument("end", choices=("send", "receive"))
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--proxy", type=int, default=0, help="a SOCKS5 proxy's port on loopback")
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    (send if options.end == "send" else receive)(options)


if __name__ == "__main__":
    main()
