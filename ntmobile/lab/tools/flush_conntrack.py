"""Forget every tracked connection of this network namespace, as ``conntrack -F`` does."""

from __future__ import annotations

import os
import socket
import struct

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_DELETE = 2
NLM_F_REQUEST = 1
NLM_F_ACK = 4


def flush() -> None:
    """Send a delete request that names no connection: it means all."""
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    family, version, resource = socket.AF_UNSPEC, 0, 0
    body = struct.pack("=BBH", family, version, resource)
    header = struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.sendto(header + body, (0, 0))
        answer = netlink.recv(65536)
    (error,) = struct.unpack_from("=i", answer, 16)
    if error != 0:
        raise OSError(-error, f"conntrack flush: {os.strerror(-error)}")


if __name__ == "__main__":
    flush()
