"""``twistd ntm-cache``: a real server on loopback, over TLS, and as a process of its own."""

from __future__ import annotations

import resource
import signal
import socket
import ssl
import time
from collections.abc import Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.errors import ConfigurationError
from ntmobile.machines.exchange.objects import ObjectHeader
from ntmobile.servers.cache import CacheService
from ntmobile.servers.cache_configuration import load_cache
from ntmobile.testing.clock import ExactClock
from ntmobile.wire.messages.exchange import (
    EncryptedDataDownloadResponse,
    EncryptedDataUploadResponse,
)
from tests.cache_servers import HOST, CacheWorld
from tests.server_processes import PATIENCE, TWISTD, ServerProcess, python
from tests.web_clients import Answered

ALICE, BOB = "phone.alice.dc1.ntm.example", "laptop.bob.dc2.ntm.example"


async def at_once(asked: Iterable[Coroutine[Deferred[Any], Any, Answered]]) -> list[Answered]:
    """Ask all of it before anything is answered."""
    return [await each for each in [Deferred.fromCoroutine(one) for one in asked]]


class CacheServiceTests(TestCase):
    """The service in this process."""

    timeout = 60

    def setUp(self) -> Any:
        """A world with its service; what is given back is awaited by trial."""
        self.world = CacheWorld(Path(self.mktemp()))
        self.world.write()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.world.stop()))
        return Deferred.fromCoroutine(self.world.start())

    async def test_sent_and_fetched(self) -> None:
        """An object of several parts is sent, survives a restart, and is fetched as it was."""
        alice, bob = await self.world.device(ALICE), await self.world.device(BOB)
        plain = bytes(range(256)) * 20_000
        signed, parts = alice.seal(plain, (BOB,))
        answer = await alice.web.ask("POST", "/v1/objects", alice.announcement(signed, (BOB,)))
        found = answer.document(EncryptedDataUploadResponse)
        self.assertEqual(found.missing, (0, 1))
        path = f"/v1/objects/{found.object.hex()}"
        alice.web.headers["content-type"] = "application/octet-stream"
        for number, part in enumerate(parts):
            answer = await alice.web.ask("PUT", f"{path}/parts/{number}", part)
            self.assertEqual(answer.status, 204, answer.body)
        await self.world.stop()
        await self.world.start()
        self.world._sequence = 0
        alice_again, bob = await self.world.device(ALICE), await self.world.device(BOB)
        answer = await alice_again.web.ask("POST", f"{path}/complete")
        # Nobody is the coordinator of dc2 here; the object waits all the same.
        [result] = answer.document(EncryptedDataUploadResponse).results
        self.assertIn("dc2.ntm.example", result.reason)
        answer = await bob.web.ask("GET", path)
        self.assertEqual(answer.document(EncryptedDataDownloadResponse).manifest, signed)
        for number, part in enumerate(parts):
            answer = await bob.web.ask("GET", f"{path}/parts/{number}")
            self.assertEqual(answer.body, part)
        self.assertEqual(len(parts), ObjectHeader.create(len(plain)).parts)

    async def test_at_once(self) -> None:
        """R30: of parts that come at once over several connections one stays, whole."""
        alice, bob = await self.world.device(ALICE), await self.world.device(BOB)
        signed, parts = alice.seal(bytes(range(256)) * 10_000, (BOB,))
        announcement = alice.announcement(signed, (BOB,))
        answers = await at_once(
            alice.web.ask("POST", "/v1/objects", announcement) for _ in range(4)
        )
        [path] = {
            f"/v1/objects/{each.document(EncryptedDataUploadResponse).object.hex()}"
            for each in answers
        }
        octets = evolve(alice.web, headers={"content-type": "application/octet-stream"})
        sent = [parts[0], bytes(len(parts[0]))] * 4
        answers = await at_once(octets.ask("PUT", f"{path}/parts/0", part) for part in sent)
        statuses = [each.status for each in answers]
        self.assertEqual(sorted(statuses), [204] * 4 + [409] * 4)
        taken = {part for part, each in zip(sent, answers, strict=True) if each.status == 204}
        self.assertEqual(len(taken), 1)
        answers = await at_once(alice.web.ask("POST", f"{path}/complete") for _ in range(3))
        if statuses[0] == 204:
            self.assertEqual([each.status for each in answers], [200] * 3)
            self.assertEqual((await bob.web.ask("GET", f"{path}/parts/0")).body, parts[0])
        else:  # the wrong one was first: the object goes, once, and nobody sees it
            self.assertLessEqual({each.status for each in answers}, {422, 404})
            self.assertEqual((await bob.web.ask("GET", path)).status, 404)

    async def test_refused_connection(self) -> None:
        """A connection that is not taken is closed, and that is all."""
        alice = await self.world.device(ALICE)
        service = self.world.service
        assert service is not None
        service.api.serving = False
        for _ in range(3):
            await self.assertFailure(
                Deferred.fromCoroutine(alice.web.ask("GET", "/v1/openapi.json")), Exception
            )
        self.assertEqual(self.flushLoggedErrors(), [])
        service.api.serving = True
        self.assertEqual((await alice.web.ask("GET", "/v1/openapi.json")).status, 200)

    async def test_clock_ahead(self) -> None:
        """R12: a clock that is ahead when the machine starts has nothing removed as over."""
        alice = await self.world.device(ALICE)
        signed, _ = alice.seal(b"hello", (BOB,))
        answer = await alice.web.ask("POST", "/v1/objects", alice.announcement(signed, (BOB,)))
        path = f"/v1/objects/{answer.document(EncryptedDataUploadResponse).object.hex()}"
        await self.world.stop()
        service = await self.world.start()
        ahead = time.time() + 90 * 86400
        self.patch(service.cache, "_wall", lambda: ahead)
        await service._remove_expired()
        self.world._sequence = 0
        await self.world.tell(time=int(time.time() * 1000))
        await service._remove_expired()
        alice = await self.world.device(ALICE)
        self.assertEqual((await alice.web.ask("GET", f"{path}/status")).status, 200)

    async def test_tokens(self) -> None:
        """R28, R34: only the realm's AS tells of tokens, and what it says holds at once."""
        alice = await self.world.device(ALICE)
        path = f"/v1/keys/{'00' * 32}"
        self.assertEqual((await alice.web.ask("GET", path)).status, 404)
        await self.world.tell(revoked=(ALICE,))
        self.assertEqual((await alice.web.ask("GET", path)).status, 401)
        alice.web.signer = None
        self.assertEqual((await alice.web.ask("POST", "/v1/tokens", b"{}")).status, 403)

    async def test_other_servers(self) -> None:
        """R1: a coordinator's certificate opens nothing here, nor does one of another realm."""
        for tls in (
            self.world.tls("dc", "dc1.ntm.example"),
            self.world.tls("as", "other.ntm.example"),
        ):
            alice = await self.world.device(ALICE)
            alice.web.tls, alice.web.signer = tls, None
            try:
                answer = await alice.web.ask("POST", "/v1/tokens", b"{}")
            except Exception:
                continue  # refused by TLS
            self.assertEqual(answer.status, 403)


class CacheProcessTests(SynchronousTestCase):
    """The program."""

    def setUp(self) -> None:
        self.world = CacheWorld(Path(self.mktemp()))
        self.world.write()

    def test_started(self) -> None:
        """It starts, answers over TLS, says nothing of itself but what is documented, and ends."""
        server = ServerProcess("ntm-cache", self.world.file)
        self.addCleanup(server.stop)
        server.expect("cache server cs1.dc1.ntm.example on TCP port")
        server.expect("is tried again")  # its coordinator is not there
        answer = self.get("/v1/nothing")
        self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), answer)
        self.assertIn(b"application/problem+json", answer)
        log = server.stop()
        self.assertEqual(server.process.returncode, -signal.SIGTERM)  # as twistd has it
        self.assertNotIn("Traceback", log)

    def test_many_idle(self) -> None:
        """Idle connections, more than files that a shell allows, keep nobody from being served."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (96, hard))
        try:
            server = ServerProcess("ntm-cache", self.world.file)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.addCleanup(server.stop)
        server.expect("is tried again")
        address = HOST, self.world.port
        with ExitStack() as idle:
            for _ in range(600):  # more than one address may have
                idle.enter_context(socket.create_connection(address, PATIENCE))
            answer = self.get("/v1/openapi.json")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertNotIn("Traceback", server.stop())

    def get(self, path: str) -> bytes:
        """Ask over TLS; all that is answered."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with (
            socket.create_connection((HOST, self.world.port), PATIENCE) as plain,
            context.wrap_socket(plain) as connection,
        ):
            connection.sendall(request.encode())
            answer = b""
            while data := connection.recv(65536):
                answer += data
        return answer

    def test_port_in_use(self) -> None:
        """A port that is taken is one line, and a status of failure."""
        with socket.socket() as taken:
            taken.bind((HOST, self.world.port))
            taken.listen()
            words = ["--nodaemon", "--pidfile=", "ntm-cache", f"--config={self.world.file}"]
            done = python(TWISTD, *words)
        self.assertEqual(done.returncode, 1)
        said = done.stdout + done.stderr
        self.assertIn(f"ntm-cache: cannot listen on TCP port {self.world.port}", said)
        self.assertNotIn("Traceback", said)

    def test_wrong_configuration(self) -> None:
        """An unknown key is one exact line, as is a storage that does not exist."""
        text = self.world.file.read_text()
        self.world.file.write_text(text + "[limits]\nobjekt = 5\n")
        with self.assertRaisesRegex(ConfigurationError, "did you mean 'object'"):
            load_cache(self.world.file)
        self.world.file.write_text(text + '[storage]\nplugin = "tape"\n')
        with self.assertRaisesRegex(ConfigurationError, "unknown plugin 'tape'"):
            CacheService(load_cache(self.world.file), ExactClock())
