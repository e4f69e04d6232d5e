"""How often logins may be tried, by user and by source (rule R2)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from attrs import define, field

from ntmobile.errors import QuotaExceeded
from ntmobile.machines.login.sources import source_network
from ntmobile.machines.rate import RateLimiter

#: Passwords tried for one user from one network: so many at once, then one in so many seconds.
#: A success clears it.
PAIR_BURST: Final = 10
PAIR_INTERVAL: Final = 30.0
#: Passwords tried for one user from anywhere: more than one network may use up, so that a stranger
#: cannot lock the user out.
USER_BURST: Final = 50
USER_INTERVAL: Final = 10.0
#: Passwords tried from one network, whoever's; a success clears nothing.
SOURCE_BURST: Final = 30
SOURCE_INTERVAL: Final = 6.0
#: Certificate logins of one device.
DEVICE_BURST: Final = 30
DEVICE_INTERVAL: Final = 5.0
#: Certificate logins from one network that failed.
FAILURE_BURST: Final = 60
FAILURE_INTERVAL: Final = 2.0


def _limiter(interval: float, burst: int) -> RateLimiter:
    return RateLimiter(1.0 / interval, burst)


@define
class Attempts:
    """Counts attempts. Users that do not exist are counted like any other."""

    _pairs: RateLimiter = field(factory=lambda: _limiter(PAIR_INTERVAL, PAIR_BURST))
    _users: RateLimiter = field(factory=lambda: _limiter(USER_INTERVAL, USER_BURST))
    _sources: RateLimiter = field(factory=lambda: _limiter(SOURCE_INTERVAL, SOURCE_BURST))
    _devices: RateLimiter = field(factory=lambda: _limiter(DEVICE_INTERVAL, DEVICE_BURST))
    _failures: RateLimiter = field(factory=lambda: _limiter(FAILURE_INTERVAL, FAILURE_BURST))

    def password(self, user: str, source: str, now: float) -> None:
        """Count a password that is about to be checked.

        :param now: monotonic seconds.
        :raises QuotaExceeded: too many; the text says when to try again.
        """
        network = source_network(source)
        _take(self._sources, network, now, "from this network")
        _take(self._pairs, (user, network), now, "for this user")
        _take(self._users, user, now, "for this user")

    def password_right(self, user: str, source: str) -> None:
        """The password was right: the user's own mistakes before it are forgotten."""
        self._pairs.forget((user, source_network(source)))

    def certificate(self, fqdn: str, now: float) -> None:
        """Count a login of a device that proved its identity.

        :raises QuotaExceeded: too many; the text says when to try again.
        """
        _take(self._devices, fqdn, now, "of this device")

    def certificate_wrong(self, source: str, now: float) -> None:
        """Count a certificate login that failed.

        :raises QuotaExceeded: too many; the text says when to try again.
        """
        _take(self._failures, source_network(source), now, "from this network")


def _take(limiter: RateLimiter, key: Hashable, now: float, whose: str) -> None:
    if not limiter.allow(key, now):
        wait = int(limiter.wait(key, now)) + 1
        raise QuotaExceeded(f"too many logins {whose}; try again in {wait} s")
