"""The authorities of other realms, as an AS tells them to the devices that log in.

They are in the answer to a login, which is one message, so not any number of them can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping

from ntmobile.errors import ConfigurationError, MalformedMessage
from ntmobile.wire.certificates import Authority, TrustStore
from ntmobile.wire.codec import FRAME_LIMIT, encode
from ntmobile.wire.messages.account import LoginResponse, Trusted


def trusted_realms(trust: TrustStore) -> tuple[Trusted, ...]:
    """The foreign authorities, as devices are told of them."""
    return _told({one: each for one, each in trust.authorities.items() if one != trust.home})


def with_realm(trust: TrustStore, suffix: str, authority: Authority) -> tuple[Trusted, ...]:
    """The same, where this one is trusted too, or instead of the one of that suffix."""
    foreign = {one: each for one, each in trust.authorities.items() if one != trust.home}
    return _told({**foreign, suffix: authority})


def _told(foreign: Mapping[str, Authority]) -> tuple[Trusted, ...]:
    return tuple(Trusted(suffix, each.to_pem()) for suffix, each in sorted(foreign.items()))


def check_told(bundle: bytes, trusted: tuple[Trusted, ...]) -> None:
    """Check that devices can be told of all these.

    :param bundle: the own realm's.
    :raises ConfigurationError: they do not fit the answer to a login.
    """
    longest = LoginResponse(
        0, (1 << 53) - 1, "", bytes(400), bundle, trusted, bytes(48), (1 << 62) - 1
    )
    try:
        encode(longest)
    except MalformedMessage:
        size = len(bundle) + sum(len(one.suffix) + len(one.bundle) for one in trusted)
        raise ConfigurationError(
            f"{len(trusted)} trusted realms with {size} bytes of certificates do not fit the "
            f"answer to a login, which has 64 at most and {FRAME_LIMIT} bytes; remove those that "
            f"are not needed from [foreign] of as.toml"
        ) from None
