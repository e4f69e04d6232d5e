"""What the configuration sections of the lookup plugins have in common."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from ntmobile.errors import ConfigurationError

#: A coordinator's port where nothing names another.
COORDINATOR_PORT: Final = 4330


def parse_address(key: str, value: object, default_port: int) -> tuple[str, int]:
    """Parse ``192.0.2.1:53``, ``[2001:db8::1]:53``, or either without a port.

    :param key: where it stands in the configuration, for the text.
    :return: host in its normal form, and port.
    :raises ConfigurationError: anything else; names ask for a lookup that has not begun yet.
    """
    problem = ConfigurationError(
        f"{key}: {value!r} is no numeric address with a port; write 192.0.2.1:{default_port} or "
        f"[2001:db8::1]:{default_port}"
    )
    if not isinstance(value, str):
        raise problem
    if value.startswith("["):
        host, bracket, port = value[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise problem
        port = port[1:] if port else str(default_port)
    elif value.count(":") == 1:
        host, _, port = value.partition(":")
    else:
        host, port = value, str(default_port)
    try:
        address = ip_address(host)
    except ValueError:
        raise problem from None
    if value.startswith("[") and address.version == 4:
        raise problem
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise problem
    return str(address), int(port)
