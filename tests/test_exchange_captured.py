"""All that two DCs and a CS stored, heard, said and held, in the hands of an attacker."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from ntmobile.client.identity import DeviceIdentity
from ntmobile.errors import NTMobileError
from ntmobile.machines.exchange.manifests import open_details, verify_manifest
from ntmobile.machines.exchange.shared_keys import SharedKey, key_identifier, temporal_identifier
from ntmobile.machines.exchange.signing import Signer
from ntmobile.protocols.http_connection import HttpConnection
from ntmobile.protocols.link import Link
from ntmobile.servers.credentials import load_key
from ntmobile.wire.codec import Message, encode
from ntmobile.wire.http_keys import coordinator_key
from ntmobile.wire.messages.exchange import (
    EncryptedDataDownloadResponse,
    SignedManifest,
    TemporalKeyListDownloadResponse,
)
from tests.platforms import DC1, DC2, PASSWORD, Platform
from tests.test_exchange_through import TEXT, Device, ExchangeCase

DOMAINS = (DC1, DC2)
#: What bytes look like in JSON, headers and paths.
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{22,}={0,2}")
_HEX = re.compile(rb"(?:[0-9a-f]{2}){16,}")


class Capture:
    """What servers hear and say, after TLS; and what they store and hold, at any moment."""

    def __init__(self, case: ExchangeCase) -> None:
        self.heard: list[bytes] = []
        self.stored: list[bytes] = []
        self.held: list[bytes] = []
        hears, link_hears = HttpConnection.dataReceived, Link.dataReceived
        says: Any = HttpConnection.write
        says_all: Any = HttpConnection.writeSequence
        sends = Link._send

        def heard(connection: HttpConnection, data: bytes) -> None:
            self.heard.append(data)
            hears(connection, data)

        def said(connection: HttpConnection, data: bytes) -> None:
            self.heard.append(data)
            says(connection, data)

        def all_said(connection: HttpConnection, data: list[bytes]) -> None:
            self.heard.append(b"".join(data))
            says_all(connection, data)

        # Each link of the test has a DC at one end: what the other end says is what it hears.
        def linked(link: Link, data: bytes) -> None:
            self.heard.append(data)
            link_hears(link, data)

        def sent(link: Link, flags: int, identifier: int, message: Message, data: bytes) -> None:
            self.heard.append(encode(message))
            sends(link, flags, identifier, message, data)

        for kind, name, call in (
            (HttpConnection, "dataReceived", heard),
            (HttpConnection, "write", said),
            (HttpConnection, "writeSequence", all_said),
            (Link, "dataReceived", linked),
            (Link, "_send", sent),
        ):
            case.patch(kind, name, call)

    def look(self, platform: Platform, case: ExchangeCase) -> None:
        """Take all that the servers store, and every key that they hold, just now."""
        for place in (*DOMAINS, "caches"):
            self.stored += [file.read_bytes() for file in _files(platform.directory / place)]
        for name in ("dc1", "dc2"):
            domain = platform.services[name].domain
            for key in domain.keys.values():
                self.held += [key, coordinator_key(key)]
        tokens = case.cache_server.cache.tokens
        self.held += [one.key for one in tokens._tokens.values()] + list(tokens._tokens)

    def everything(self) -> list[bytes]:
        """All of it, and what of it was written as text, read."""
        raw = [b"".join(self.heard), *self.stored, *self.held]
        return raw + [each for data in raw for each in _decoded(data)]


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file())


def _decoded(data: bytes) -> Iterator[bytes]:
    for text in _BASE64.findall(data):
        try:
            yield base64.b64decode(text + b"=" * (-len(text) % 4))
        except binascii.Error:
            continue
    for text in _HEX.findall(data):
        yield bytes.fromhex(text.decode("ascii"))


class CapturedTests(ExchangeCase):
    """Alice sends Bob a key and an object; the servers of both domains work together."""

    found: EncryptedDataDownloadResponse
    wanted: bytes

    async def played(self) -> tuple[Platform, Device, Device, SharedKey, Capture]:
        """Both figures, and what the attacker then has."""
        capture = Capture(self)
        platform, phone, laptop = await self.start()
        shared = await self.send_key(phone, laptop)
        await self.send_data(phone, laptop, shared)
        capture.look(platform, self)
        (entry,) = [one for one in await self.listed(laptop) if one.kind == "data"]
        base = f"/v1/objects/{entry.identifier[:16].hex()}"
        self.found = (await laptop.cache.ask("GET", base)).document(EncryptedDataDownloadResponse)
        await laptop.home.ask("DELETE", f"/v1/caches/{entry.identifier.hex()}")
        self.assertEqual(await self.fetch_key(laptop, phone), shared.key)
        capture.look(platform, self)
        return platform, phone, laptop, shared, capture

    def secrets(self, platform: Platform, laptop: Device, shared: SharedKey) -> dict[str, bytes]:
        """What they must not have."""
        found = {
            "the shared key": shared.key,
            "the text": TEXT[:36],
            "its type": b"text/plain",
            "the password": PASSWORD.encode(),
        }
        for state in sorted((platform.directory / "devices").iterdir()):
            keys = DeviceIdentity.load(state).keys
            found |= {
                f"{state.name}: identity": keys.identity.private_bytes_raw(),
                f"{state.name}: for tunnels": keys.x25519.private_bytes_raw(),
                f"{state.name}: X-Wing": keys.xwing_seed,
            }
        (secret,) = laptop.ring.secrets.values()
        return found | {"the pre-key": secret.seed}

    async def test_cannot_read(self) -> None:
        """R3, R29, R31: nothing that opens it is among all bytes of DCs and CS, while Bob opens."""
        platform, phone, laptop, shared, capture = await self.played()
        everything = capture.everything()
        whole = b"\0".join(everything)
        for name, secret in self.secrets(platform, laptop, shared).items():
            self.assertNotIn(secret, whole, name)
        # It is all of it: what they may know is there, in what was heard and in what is stored.
        temporal = self.temporal(everything)
        self.assertTrue(any(temporal in data for data in capture.stored))
        self.assertIn(self.found.manifest.manifest, whole)
        # Nor is the shared key there in some other place or way of writing.
        tried = 0
        for data in everything:
            for begin in range(len(data) - 31):
                tried += 1
                self.assertNotEqual(key_identifier(data[begin : begin + 32]), shared.identifier)
        self.assertGreater(tried, 3 * len(TEXT))
        manifest = verify_manifest(
            self.found.manifest, pin=phone.pin, now=reactor.seconds(), receiver=laptop.fqdn
        )
        for key in (*capture.held, temporal):
            if len(key) == 32:
                with self.assertRaises(NTMobileError):
                    open_details(manifest, key)
        self.assertEqual(open_details(manifest, shared.key).length, len(TEXT))

    def temporal(self, everything: list[bytes]) -> bytes:
        """The temporal key, which they do know, found by its name."""
        for data in everything:
            if len(data) == 32 and temporal_identifier(data) == self.wanted:
                return data
        raise AssertionError("the capture has not even the temporal key")

    async def send_key(self, phone: Device, laptop: Device) -> SharedKey:
        """As it is, noting the temporal key's name."""
        shared = await super().send_key(phone, laptop)
        answer = await laptop.home.ask("GET", "/v1/temporal-keys")
        (self.wanted,) = answer.document(TemporalKeyListDownloadResponse).identifiers
        return shared

    async def test_logs(self) -> None:
        """R6: no server's log has a key or a token in any form, however much it tells."""
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        platform, _, laptop, shared, capture = await self.played()
        lines = [f"{formatEvent(event)} {event!r}" for event in events]
        self.assertTrue(any("/v1/objects" in line for line in lines), "nothing was told")
        text = "\n".join(lines)
        secrets = self.secrets(platform, laptop, shared)
        secrets["the temporal key"] = self.temporal(capture.everything())
        for number, key in enumerate(capture.held):
            secrets[f"of the servers, {number}"] = key
        for name, secret in secrets.items():
            for form in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1]):
                self.assertNotIn(form, text, name)

    async def test_cannot_forge(self) -> None:
        """R29: none of the private keys that servers hold signs what Bob takes for Alice's."""
        platform, phone, _, shared, _ = await self.played()
        found = verify_manifest(self.found.manifest, pin=phone.pin, now=reactor.seconds())
        certificate = self.found.manifest.certificate
        keys = [
            path
            for place in (*DOMAINS, "caches")
            for path in _files(platform.directory / place)
            if b"PRIVATE KEY" in path.read_bytes()
        ]
        for signer in map(load_key, keys):
            data = self.found.manifest.manifest.replace(b"a letter", b"a latter")
            signature = Signer(phone.fqdn, certificate, signer).sign("ntm1 manifest", data)
            forged = SignedManifest(data, signature, certificate)
            with self.assertRaises(NTMobileError):
                verify_manifest(forged, pin=phone.pin, now=reactor.seconds())
        self.assertEqual(len(keys), 3)  # two DCs, one CS
        self.assertEqual((found.sender, found.key), (phone.fqdn, shared.identifier))
