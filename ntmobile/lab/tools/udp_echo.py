"""Send every UDP datagram back to where it came from. Usage: ``udp_echo.py PORT``."""

from __future__ import annotations

import socket
import sys


def main() -> None:
    """Echo for ever, in both families."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as echo:
        echo.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        echo.bind(("::", int(sys.argv[1])))
        print("ready", flush=True)
        while True:
            try:
                data, address = echo.recvfrom(65535)
                echo.sendto(data, address)
            except OSError as problem:  # an error about an earlier datagram, or no route now
                print(problem, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
