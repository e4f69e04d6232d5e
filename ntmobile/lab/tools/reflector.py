"""Tell those behind a NAT how they look from here: the server end of ``nat_probe.py``.

Usage: ``reflector.py ADDRESS PORT``; it uses the next port too. A datagram is one word: ``reflect``
(answer from here), ``other-port`` (answer from the next port), or ``send ADDRESS PORT`` (send
something there, unasked). Each answer is the address and port that the question came from.
"""

from __future__ import annotations

import contextlib
import socket
import sys


def main() -> None:
    """Answer for ever."""
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as main_socket,
        socket.socket(family, socket.SOCK_DGRAM) as other,
    ):
        main_socket.bind((address, port))
        other.bind((address, port + 1))
        print("ready", flush=True)
        while True:
            data, source = main_socket.recvfrom(2048)
            word, *rest = data.decode().split()
            answer = f"{source[0]} {source[1]}".encode()
            with contextlib.suppress(OSError):
                if word == "send":
                    main_socket.sendto(b"unsolicited", (rest[0], int(rest[1])))
                    main_socket.sendto(answer, source)
                else:
                    (other if word == "other-port" else main_socket).sendto(answer, source)


if __name__ == "__main__":
    main()
