"""The ordinary program of the demo: one TCP connection that counts. It knows nothing of ntmobile.

``counter.py serve PORT`` answers each line with its number among all lines it ever got, and says
how many connections there were. ``counter.py count HOST PORT`` connects once, sends a line of 1 KiB
every ``--interval`` seconds without waiting for answers, and prints ``NUMBER UNIX-TIME`` for each
answer that comes. It ends at a signal, or with an error at the first sign of a broken connection.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time

#: Bytes of a line, its end included.
LINE = 1024


def serve(port: int) -> None:
    """Count the lines of all connections, one connection after the other."""
    lines = 0
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        while True:
            connection, peer = server.accept()
            print("connection from", peer[0], flush=True)
            with connection, connection.makefile("rb") as incoming:
                for _ in incoming:
                    lines += 1
                    connection.sendall(b"%d\n" % lines)
            print("connection closed", flush=True)


def count(host: str, port: int, interval: float) -> None:
    """Send lines and print when their answers came."""
    connection = socket.create_connection((host, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("connected", flush=True)
    line = b"x" * (LINE - 1) + b"\n"
    due, pending = time.monotonic(), b""
    while True:
        wait = due - time.monotonic()
        if wait <= 0:
            connection.sendall(line)
            # What was missed while the connection stood still is not made up for.
            due = max(due + interval, time.monotonic())
            continue
        if select.select([connection], [], [], wait)[0]:
            data = connection.recv(65536)
            if not data:
                sys.exit("the connection was closed")
            *answers, pending = (pending + data).split(b"\n")
            for answer in answers:
                print(answer.decode(), f"{time.time():.6f}", flush=True)


def main() -> None:
    """Serve or count, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("serve")
    client = roles.add_parser("count")
    client.add_argument("host")
    client.add_argument("--interval", type=float, default=0.01)
    for role in (server, client):
        role.add_argument("port", type=int)
    options = parser.parse_args()
    if options.role == "serve":
        serve(options.port)
    else:
        count(options.host, options.port, options.interval)


if __name__ == "__main__":
    main()
