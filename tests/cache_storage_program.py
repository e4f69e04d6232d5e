"""Uses a storage as hard as it can until it is killed, and says what was done.

See ``test_cache_storage_kill``. Each line on standard output is ``STEP OBJECT [NUMBER]``. Steps
whose names end in -ing come before what they say, the others after it.
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from ntmobile import plugins
from ntmobile.interfaces import ICacheStorageProvider, Quotas
from tests.cache_storage_cases import BOB, CAROL, NOW, announced, key, part

#: How many at once.
WRITERS = 4


def say(step: str, identifier: bytes, *more: object) -> None:
    """One line, out of this process before anything else happens."""
    words = " ".join(map(str, (step, identifier.hex(), *more)))
    os.write(1, words.encode() + b"\n")


async def life(storage: Any, chance: random.Random) -> None:
    """One object from its announcement to whatever end."""
    identifier = chance.randbytes(16)
    each = announced(identifier, length=chance.randrange(1, 4000))
    say("announcing", identifier, each.length)
    await storage.add_keys([key(identifier * 2)], NOW)
    say("key", identifier)
    await storage.add_object(each, NOW)
    numbers = list(range(each.parts))
    chance.shuffle(numbers)
    for number in numbers:
        data, digest = part(number, each.size_of(number))
        await storage.put_part(identifier, number, data, digest, NOW)
        say("part", identifier, number)
        if chance.random() < 0.1:
            say("removing", identifier)
            await storage.remove(identifier)
            say("removed", identifier)
            return
    await storage.told("data", identifier, [BOB], NOW)
    say("told", identifier)
    if chance.random() < 0.5:
        await storage.confirm(identifier, BOB, b"bob", NOW)
        say("bob", identifier)
        say("confirming", identifier)
        await storage.confirm(identifier, CAROL, b"carol", NOW)
        say("confirmed", identifier)


async def main(_: object, name: str, section: str, directory: str, seed: str) -> None:
    """Open the storage, and go on for ever."""
    provider = plugins.find(ICacheStorageProvider, name)
    storage = provider.configure(json.loads(section), directory, Quotas(), reactor)
    await storage.open()
    say("opened", b"")

    async def writer(number: int) -> None:
        chance = random.Random(f"{seed}.{number}")
        while True:
            await life(storage, chance)

    await gatherResults([Deferred.fromCoroutine(writer(number)) for number in range(WRITERS)])


if __name__ == "__main__":
    react(lambda *words: Deferred.fromCoroutine(main(*words)), sys.argv[1:])
