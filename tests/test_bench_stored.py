"""The benchmarks of stored data: small ones with real servers, and what must not pass."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from ntmobile.bench import nginx, programs
from ntmobile.bench.nginx import NGINX, PACKAGE
from ntmobile.bench.results import OWN, NothingTransferred, Section, Skipped, Table
from ntmobile.bench.stored import PARTS, Size, Transfers, measured
from ntmobile.bench.stored_realm import Octets, file_system, request_head, workplace
from ntmobile.bench.transfer import Ask, Job, run
from ntmobile.servers.credentials import key_to_pem
from tests.realms import MemoryRealm

QUICK = Size(octets=9 << 20, library=1 << 20, messages=4, waiting=30)


class _Benchmark(TestCase):
    """All of it, with little data and one sample each."""

    timeout = 120

    async def measure(self) -> Section:
        """Measure; nothing may fail."""
        section = await measured(reactor, 1, lambda line: None, QUICK)
        self.assertEqual(section.failures, [])
        return section

    def table(self, section: Section, title: str) -> Table:
        """The table of a title."""
        (found,) = [each for each in section.tables if each.title.endswith(title)]
        return found


class StoredBenchmarkTests(_Benchmark):
    """Without a peer."""

    async def test_without_nginx(self) -> None:
        """Where there is no nginx its rows say so, and everything else is measured."""

        def missing(program: str, package: str) -> Path:
            raise Skipped(f"{program} is not installed (Debian package {package})")

        self.patch(nginx, "debian", missing)
        section = await self.measure()
        for title in ("to the server", "from the server"):
            table = self.table(section, title)
            (verdict,) = table.verdicts()
            self.assertIsNone(verdict.met)
            for row in table.rows:
                self.assertEqual(bool(row.samples), row.name == OWN)
                self.assertEqual("Debian package nginx" in row.skipped, row.name != OWN)
        for table in section.tables:
            for row in table.rows:
                self.assertTrue(row.samples or row.name in (NGINX, PARTS), row.name)
        self.assertIn("TLSv1.3", str(self.table(section, "to the server").rows[0].detail))


class NginxBenchmarkTests(_Benchmark):
    """Beside a real nginx."""

    async def test_with_nginx(self) -> None:
        """The peer is measured in the same run, under the same TLS, and there are ratios."""
        try:
            programs.debian(NGINX, PACKAGE)
        except Skipped as reason:
            raise SkipTest(str(reason)) from None
        section = await self.measure()
        for title in ("to the server", "from the server"):
            table = self.table(section, title)
            self.assertEqual([row.name for row in table.rows], [OWN, NGINX, PARTS])
            self.assertIsNotNone(table.ratio(OWN, NGINX))
            own, peer, _ = table.rows
            spoken = [each.detail.partition(";")[0] for each in (own, peer)]
            self.assertEqual(spoken, ["TLSv1.3 TLS_AES_256_GCM_SHA384"] * 2)


class _Answers(BaseHTTPRequestHandler):
    """Answers as the test says."""

    protocol_version = "HTTP/1.1"
    answer: tuple[int, bytes, int]

    def do_GET(self) -> None:
        """Answer."""
        status, body, length = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length != len(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class TransferTests(SynchronousTestCase):
    """The client that moves bytes, against a small TLS server."""

    def setUp(self) -> None:
        realm = MemoryRealm()
        key, chain = realm.server("cs", "cs1.dc1.ntm.example")
        place = Path(self.mktemp())
        place.mkdir()
        (place / "both.pem").write_bytes(
            key_to_pem(key) + b"".join(each.public_bytes(Encoding.PEM) for each in chain)
        )
        self.authority = place / "ca.pem"
        self.authority.write_bytes(realm.authority.to_pem())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(place / "both.pem")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def ask(self, status: int, body: bytes, length: int | None = None) -> Callable[[], Any]:
        """A job of two requests, whose answers are this."""
        _Answers.answer = (status, body, len(body) if length is None else length)
        ask = Ask(request_head("GET", "/x", 0, {}), 200, keep=True)
        port = self.server.server_address[1]
        return lambda: run(Job("127.0.0.1", port, str(self.authority), [[ask, ask]], "", 100))

    def test_content(self) -> None:
        """What came is kept and hashed."""
        done = self.ask(200, b"half")()
        self.assertEqual(done.kept, 8)
        self.assertEqual(done.digest, sha256(b"halfhalf").hexdigest())
        self.assertTrue(done.cipher.startswith("TLSv1.3"))

    def test_status(self) -> None:
        """Another status is a failure that has the server's words."""
        problem = self.assertRaises(NothingTransferred, self.ask(507, b"no room"))
        self.assertIn("status 507, not 200: no room", str(problem))

    def test_cut(self) -> None:
        """An answer that ends too early is a failure."""
        self.assertRaises(NothingTransferred, self.ask(200, b"half", 80))

    def test_too_long(self) -> None:
        """An answer that there is no room for is a failure."""
        self.assertRaises(NothingTransferred, self.ask(200, b"half", 1 << 20))


class RealmTests(SynchronousTestCase):
    """What the benchmark makes for itself."""

    def test_no_room(self) -> None:
        """Where the disk is too small the part is skipped, and says so."""
        with self.assertRaises(Skipped), workplace(1 << 60):
            pass

    def test_removed(self) -> None:
        """Its directory is removed at the end."""
        with workplace(1) as place:
            (place / "file").touch()
        self.assertFalse(place.exists())

    def test_file_system(self) -> None:
        """The type of a file system is that of the innermost mount."""
        self.assertEqual(file_system(Path("/proc/self")), "proc")

    def test_other_content(self) -> None:
        """What came is no result if it is not what was sent."""
        nothing: Any = None
        parcel: Any = Octets(0, 4, b"right")
        one = Transfers(nothing, None, parcel, Path())
        one.check(b"right")
        self.assertRaises(NothingTransferred, one.check, b"wrong")

    def test_octets(self) -> None:
        """A request says how long its body is."""
        self.assertEqual(Octets(0, 4, b"").length, 4)
        self.assertIn("Content-Length: 4\r\n\r\n", request_head("PUT", "/x", 4, {}))
