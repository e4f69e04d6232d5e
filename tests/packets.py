"""Inner packets for tests: strategies that make them, and checksums computed the plain way."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
V4_A, V4_B, V4_C = bytes([198, 18, 0, 1]), bytes([198, 19, 255, 254]), bytes([10, 0, 0, 9])
V6_A, V6_B, V6_C = (bytes([0xFD, 1]) + bytes(13) + bytes([last]) for last in (1, 2, 3))


def plain_sum(data: bytes) -> int:
    """The Internet checksum as RFC 1071 words it."""
    total = 0
    for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)):
        total += word
        if total > 0xFFFF:
            total -= 0xFFFF
    return ~total & 0xFFFF


def transport(protocol: int, source: bytes, destination: bytes, data: bytes) -> bytes:
    """A transport message with its checksum set right, where the protocol is known."""
    at = {TCP: 16, UDP: 6, ICMPV6: 2, ICMP: 2}.get(protocol)
    if at is None:
        return data
    blank = data[:at] + bytes(2) + data[at + 2 :]
    if protocol == ICMP:
        pseudo = b""
    elif len(source) == 4:
        pseudo = source + destination + struct.pack("!BBH", 0, protocol, len(data))
    else:
        pseudo = source + destination + struct.pack("!IxxxB", len(data), protocol)
    value = plain_sum(pseudo + blank)
    if protocol == UDP and not value:
        value = 0xFFFF
    return data[:at] + value.to_bytes(2, "big") + data[at + 2 :]


def ipv4(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """An IPv4 packet with a right header checksum."""
    size = 20 + len(options)
    head = bytearray(
        struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, size + len(payload), 7, fragment, 64, 0, 0)
    )
    head[9] = protocol
    head += source + destination + options
    head[10:12] = plain_sum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + payload


def ipv6(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    extensions: tuple[tuple[int, bytes], ...] = (),
) -> bytes:
    """An IPv6 packet; each extension is its number and its bytes after the next-header byte."""
    numbers = [number for number, _ in extensions] + [protocol]
    middle = b"".join(
        bytes([following]) + body
        for following, (_, body) in zip(numbers[1:], extensions, strict=True)
    )
    length = len(middle) + len(payload)
    head = struct.pack("!IHBB", 6 << 28, length, numbers[0], 64)
    return head + source + destination + middle + payload


def messages(protocol: int) -> st.SearchStrategy[bytes]:
    """Transport messages whose checksum is still to be set."""
    if protocol == UDP:
        return st.builds(
            lambda source, destination, payload: (
                struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload
            ),
            st.integers(1, 65535),
            st.integers(1, 65535),
            st.binary(max_size=60),
        )
    if protocol == TCP:
        return st.binary(min_size=20, max_size=60)
    if protocol in (ICMP, ICMPV6):
        kind = 8 if protocol == ICMP else 128
        return st.binary(min_size=4, max_size=60).map(lambda body: bytes((kind, 0, 0, 0)) + body)
    return st.binary(max_size=60)


@st.composite
def ipv4_packets(
    draw: st.DrawFn, source: bytes, destination: bytes, protocol: int | None = None
) -> bytes:
    """Whole IPv4 packets with right checksums, some with options."""
    if protocol is None:
        protocol = draw(st.sampled_from([ICMP, TCP, UDP, 47, 132]))
    options = draw(st.sampled_from([b"", bytes([1, 1, 1, 0]), bytes([7, 7, 4]) + bytes(5)]))
    message = transport(protocol, source, destination, draw(messages(protocol)))
    return ipv4(source, destination, protocol, message, options)


@st.composite
def ipv6_packets(
    draw: st.DrawFn, source: bytes, destination: bytes, protocol: int | None = None
) -> bytes:
    """Whole IPv6 packets with right checksums, some with extension headers."""
    if protocol is None:
        protocol = draw(st.sampled_from([ICMPV6, TCP, UDP, 47, 59]))
    extension = st.sampled_from(
        [
            (0, b"\x00" + bytes(6)),  # hop by hop
            (60, b"\x01" + bytes(14)),  # destination options
            (43, b"\x00\x02\x00" + bytes(4)),  # routing, used up
            (44, b"\x00\x00\x00" + bytes(4)),  # an atomic fragment
            (51, b"\x04" + bytes(22)),  # authentication
        ]
    )
    extensions = tuple(draw(st.lists(extension, max_size=3)))
    message = transport(protocol, source, destination, draw(messages(protocol)))
    return ipv6(source, destination, protocol, message, extensions)


def packets() -> st.SearchStrategy[bytes]:
    """Any of these, between A and B."""
    return ipv4_packets(V4_A, V4_B) | ipv6_packets(V6_A, V6_B)


def mangled() -> st.SearchStrategy[bytes]:
    """Packets with bytes changed, cut off or added, and plain nonsense."""

    def change(packet: bytes, at: int, value: int, end: int, tail: bytes) -> bytes:
        data = bytearray(packet)
        if data:
            data[at % len(data)] = value
        return bytes(data[: len(data) - end]) + tail

    position, value = st.integers(0, 200), st.integers(0, 255)
    return st.one_of(
        st.builds(change, packets(), position, value, st.just(0), st.just(b"")),
        st.builds(change, packets(), position, value, st.integers(0, 30), st.binary(max_size=4)),
        st.binary(max_size=120),
    )
