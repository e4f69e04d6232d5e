"""Rulesets of the routers of access networks: address translation and firewalls, in nftables.

What Linux does, and the lab relies on:

- ``masquerade`` to a port range maps one inside source (address and port) to one outside port,
  whatever the destination (the kernel looks for the mapping it gave that source before), and lets
  in only answers of whom that source has sent to: endpoint-independent mapping, address and
  port-dependent filtering (RFC 4787), "port-restricted". The ranges lie outside the ports that
  hosts choose for themselves, so that no translated port ever equals an inside one by luck.
- ``fully-random`` skips that look and draws a port for each destination: address and
  port-dependent mapping, "symmetric".
- Nothing hairpins: a datagram from inside to an outside mapping of the same router ends at the
  router's own closed door. So hosts behind one translator meet on private addresses or at a relay.
- The router drops what nobody asked for, before conntrack keeps it; else a stray datagram from
  outside would occupy the very mapping that the inside host is about to need.
"""

from __future__ import annotations

import enum

#: Ports that translators give out, below those which hosts pick (32768 and up).
HOME_PORTS = "20000-29999"
CARRIER_PORTS = "10000-19999"


class Mapping(enum.Enum):
    """How a translator chooses the outside port of an inside source (RFC 4787, section 4.1)."""

    #: One outside port for a source, whatever the destination.
    PORT_RESTRICTED = "port-restricted"
    #: Another outside port for each destination.
    SYMMETRIC = "symmetric"


def translation(wan: str, mapping: Mapping, ports: str = HOME_PORTS) -> str:
    """Translate the IPv4 of everything that leaves by ``wan``."""
    randomly = " fully-random" if mapping is Mapping.SYMMETRIC else ""
    return f"""
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname "{wan}" meta l4proto {{ tcp, udp }} masquerade to :{ports}{randomly}
        oifname "{wan}" masquerade
    }}
}}
"""


def filtering(wan: str, ipv6: bool) -> str:
    """Let nothing in from ``wan`` but answers; IPv6 is forwarded only where there is some.

    ICMP errors and the neighbour discovery of IPv6 (RFC 4890) pass, as in good home routers.
    """
    inside6 = "" if ipv6 else f'iifname "{wan}" meta nfproto ipv6 drop'
    return f"""
table inet filter {{
    chain input {{
        type filter hook input priority filter
        iifname != "{wan}" accept
        ct state established,related accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, packet-too-big }} accept
        icmp type echo-request accept
        icmpv6 type echo-request accept
        drop
    }}
    chain forward {{
        type filter hook forward priority filter
        {inside6}
        iifname != "{wan}" accept
        ct state established,related accept
        drop
    }}
}}
"""


def core() -> str:
    """Drop, as providers do (BCP 38), what comes from an address that is not routed back there."""
    return """
table inet filter {
    chain prerouting {
        type filter hook prerouting priority raw
        ip6 saddr fe80::/10 accept
        ip6 saddr :: accept
        fib saddr . iif oif missing drop
    }
}
"""


def blocking(port: str, match: str) -> str:
    """Drop frames that match, silently and both ways, at the far end of a host's cable."""
    return f"""
table netdev block_{port} {{
    chain ingress {{
        type filter hook ingress device "{port}" priority filter
        {match} counter drop
    }}
    chain egress {{
        type filter hook egress device "{port}" priority filter
        {match} counter drop
    }}
}}
"""
