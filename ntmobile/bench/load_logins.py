"""A program of ``ntm bench load``: real logins, over TLS through the DC to the AS.

``python -m ntmobile.bench.load_logins DIRECTORY CA.pem PORT ACCOUNT PASSWORD-FILE COUNT`` prints
JSON: seconds of one enrolment (a password, Argon2id) and certificate logins a second.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from ntmobile.bench.load_realm import HOST
from ntmobile.client.account import Account
from ntmobile.client.identity import DeviceIdentity, home_authority
from ntmobile.client.login import enroll, log_in
from ntmobile.plugins.files import read_file

#: Devices that log in at the same time.
DEVICES: Final = 4


async def measure(
    reactor: Any, directory: Path, bundle: Path, port: int, account: str, password: str, count: int
) -> dict[str, float]:
    """Enrol some devices, then have them log in again, so many times in all."""
    at = (HOST, port)
    identities: list[DeviceIdentity] = []
    begun = time.perf_counter()
    for number in range(DEVICES):
        wanted = Account.parse(account, f"d{number}", at)
        trust = home_authority(read_file(bundle), wanted.domain, bundle)
        state = directory / wanted.device
        enrolled = await enroll(reactor, state, wanted, trust, password)
        identities.append(enrolled.identity)
    enrolling = time.perf_counter() - begun
    left = iter(range(count))

    async def work(identity: DeviceIdentity) -> None:
        for _ in left:
            identity = (await log_in(reactor, identity, [at])).identity

    begun = time.perf_counter()
    working = [Deferred.fromCoroutine(work(identity)) for identity in identities]
    await gatherResults(working, consumeErrors=True)
    return {
        "enrolment_seconds": enrolling / DEVICES,
        "logins": count,
        "logins_per_second": count / (time.perf_counter() - begun),
    }


async def main(reactor: Any) -> None:
    """Measure as the command line says."""
    directory, bundle, port, account, password, count = sys.argv[1:]
    secret = read_file(Path(password)).decode()
    found = await measure(
        reactor, Path(directory), Path(bundle), int(port), account, secret, int(count)
    )
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
