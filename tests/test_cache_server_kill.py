"""A cache server that is killed at any moment: nothing is lost that it took, nothing half there."""

from __future__ import annotations

import http.client
import os
import random
import ssl
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.exchange.signing import Signer
from ntmobile.servers.credentials import key_to_pem
from ntmobile.wire.codec import Message
from ntmobile.wire.documents import read_document, write_document
from ntmobile.wire.http_digests import content_digest
from ntmobile.wire.http_signatures import HmacKey, Request, sign
from ntmobile.wire.messages.exchange import (
    EncryptedDataDownloadResponse,
    EncryptedDataUploadResponse,
    Manifest,
    Token,
    TokenUpdate,
)
from tests.cache_servers import HOST, CacheWorld, Device
from tests.server_processes import ServerProcess
from tests.web_clients import WebClient

ALICE, BOB = "phone.alice.dc1.ntm.example", "laptop.bob.dc1.ntm.example"
#: How often it is killed, and for how long at most it lives.
KILLS = 6
LIFE = 0.5
#: Bytes of the object: several parts.
SIZE = 20 << 20


class KillTests(SynchronousTestCase):
    """A device uploads while its server is killed again and again."""

    def setUp(self) -> None:
        self.world = CacheWorld(Path(self.mktemp()))
        self.world.write()
        self.directory = self.world.directory
        key, chain = self.world.realm.server("as", "ntm.example")
        pem = key_to_pem(key) + chain[0].public_bytes(Encoding.PEM)
        (self.directory / "as.pem").write_bytes(pem)
        self.random = random.Random(self.id())
        self.server: ServerProcess | None = None
        self.addCleanup(lambda: self.server and self.server.stop())

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """A client's TLS; who the server is does not matter here."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def start(self) -> None:
        """Start it, and tell it of both devices, as its AS does."""
        self.server = ServerProcess("ntm-cache", self.world.file)
        self.server.expect("on TCP port")
        update = TokenUpdate(1, 0, (self.token(ALICE), self.token(BOB)))
        end = time.monotonic() + 30
        while True:
            try:
                self.send("POST", "/v1/tokens", {}, update, self.directory / "as.pem")
                return
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)

    def token(self, fqdn: str) -> Token:
        """A device's token."""
        digest = sha256(fqdn.encode()).digest()
        return Token(digest[:16], fqdn, digest, int(time.time()) + 3600)

    def send(
        self,
        method: str,
        path: str,
        fields: dict[str, str],
        body: Message | bytes = b"",
        certificate: Path | None = None,
    ) -> tuple[int, bytes]:
        """Send a request; :class:`OSError` if the server goes meanwhile."""
        data = body if isinstance(body, bytes) else write_document(body)
        if not isinstance(body, bytes):
            fields = {**fields, "content-type": "application/json"}
        connection = http.client.HTTPSConnection(
            HOST, self.world.port, timeout=20, context=self.context(certificate)
        )
        try:
            connection.request(method, path, data, fields)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as problem:
            raise OSError(str(problem)) from None
        finally:
            connection.close()

    def ask(
        self, fqdn: str, method: str, path: str, body: Message | bytes = b""
    ) -> tuple[int, bytes]:
        """Send a signed request."""
        token = self.token(fqdn)
        data = body if isinstance(body, bytes) else write_document(body)
        fields = {"content-digest": content_digest(data)} if data else {}
        listed = {name: [value] for name, value in fields.items()}
        fields |= sign(
            Request(method, path, fields=listed),
            HmacKey(token.key),
            keyid=token.token.hex(),
            created=int(time.time()),
            nonce=os.urandom(16),
        )
        return self.send(method, path, fields, body)

    def test_killed(self) -> None:
        """What was acknowledged is there afterwards, the rest is sent again, and all is right."""
        identity, _, certificate = self.world.realm.device(ALICE)
        nothing: Any = None  # requests are made by what is below
        web = WebClient(ALICE, 0, nothing, nothing, "", time.time)
        device = Device(web, Signer(ALICE, certificate.der, identity))
        signed, parts = device.seal(self.random.randbytes(SIZE), (BOB,))
        identifier = msgspec.msgpack.decode(signed.manifest, type=Manifest).object
        path = f"/v1/objects/{identifier.hex()}"
        taken: set[int] = set()
        kills = 0
        while True:
            self.start()
            assert self.server is not None
            timer = threading.Timer(self.random.uniform(0.01, LIFE), self.server.process.kill)
            if kills < KILLS:
                timer.start()
            try:
                if self.upload(device, signed, path, parts, taken, pause=kills < KILLS):
                    break
            except OSError:
                kills += 1
                timer.join()
                self.server.process.wait(20)
                self.server.stop()
        self.assertEqual(kills, KILLS)
        status, data = self.ask(BOB, "GET", path)
        self.assertEqual(read_document(EncryptedDataDownloadResponse, data).manifest, signed)
        for number, part in enumerate(parts):
            self.assertEqual(self.ask(BOB, "GET", f"{path}/parts/{number}"), (200, part))
        blobs = sum(file.stat().st_size for file in self.stored() if file.stat().st_size > 1 << 19)
        self.assertEqual(blobs, sum(map(len, parts)))
        self.assertEqual(status, 200)

    def stored(self) -> list[Path]:
        """Files of the storage, but those of the database."""
        files = (self.directory / "state").rglob("*")
        return [file for file in files if file.is_file() and "sqlite" not in file.name]

    def upload(
        self,
        device: Device,
        signed: Any,
        path: str,
        parts: list[bytes],
        taken: set[int],
        pause: bool,
    ) -> bool:
        """Upload what is missing, which must not be what was taken before; whether all is done."""
        announcement = device.announcement(signed, (BOB,))
        status, data = self.ask(ALICE, "POST", "/v1/objects", announcement)
        self.assertEqual(status, 200, data)
        missing = read_document(EncryptedDataUploadResponse, data).missing
        self.assertEqual(taken & set(missing), set())
        for number in missing:
            status, data = self.ask(ALICE, "PUT", f"{path}/parts/{number}", parts[number])
            self.assertEqual(status, 204, data)
            taken.add(number)
        while pause:  # until it is killed
            self.ask(ALICE, "POST", "/v1/objects", announcement)
        status, data = self.ask(ALICE, "POST", f"{path}/complete")
        self.assertEqual(status, 200, data)
        return True
