"""The load generator: it sends what clients send, and it measures what was answered."""

from __future__ import annotations

import gc
import json
import pickle
import time
import tracemalloc
from ipaddress import IPv4Network
from os import urandom
from pathlib import Path
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.bench.load import DIRECTIONS, MEMORY, REGISTRATIONS, Memory, Rate, Report
from ntmobile.bench.load_clients import LoadClient
from ntmobile.bench.load_driver import FOR_ONE, rounds
from ntmobile.bench.load_realm import DOMAIN, POOL, logins_of, stored_client
from ntmobile.bench.load_report import lines
from ntmobile.errors import MalformedMessage
from ntmobile.machines.signalling.requests import Asked
from ntmobile.machines.signalling.session import HELLO_SIZE, ClientSession
from ntmobile.machines.signalling.table import ClientAnswered, ClientAsked, SessionTable
from ntmobile.protocols.signalling import Signalling
from ntmobile.servers.assignment import Assignments
from ntmobile.servers.domain import Domain
from ntmobile.wire.certificates import DeviceCertificate
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.fields import Endpoint
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    DirectionRequest,
    KeepAlive,
    RegistrationRequest,
    RegistrationResponse,
    RevocationOrder,
)
from tests.realms import MemoryRealm
from tests.server_processes import NTM, python

HERE = ("127.1.0.1", 4000)
INDEX, KEY = bytes(range(8)), bytes(range(32))


class LoadClientTests(SynchronousTestCase):
    """A simulated client, against the table of sessions of a real DC."""

    def setUp(self) -> None:
        self.client = LoadClient("phone.alice.dc1.ntm.example", INDEX, KEY, bytes(32))
        self.client.here = Endpoint.of(HERE)
        self.table = SessionTable(urandom)
        self.table.add(INDEX, KEY)
        self.client.welcomed(self.exchange(self.client.hello())[0])

    def exchange(self, datagram: bytes) -> list[bytes]:
        """What the table sends for a datagram; requests are acknowledged."""
        self.asked: list[Message] = []
        self.answered: list[Message | None] = []
        self.table.datagram_received(datagram, HERE, 1.0)
        sent = []
        while effects := self.table.effects():
            for effect in effects:
                match effect:
                    case ClientAsked(index, Asked() as asked):
                        self.asked.append(asked.message)
                        self.table.answer(index, asked, Acknowledgement())
                    case ClientAnswered(_, _, message):
                        self.answered.append(message)
                    case _ if hasattr(effect, "datagram"):
                        sent.append(effect.datagram)
        return sent

    def test_requests(self) -> None:
        """Its requests are understood, and it opens the answers."""
        for datagram, kind in (
            (self.client.register(), RegistrationRequest),
            (self.client.keep_alive(), KeepAlive),
            (self.client.direct("laptop.alice.dc1.ntm.example"), DirectionRequest),
        ):
            [answer] = self.exchange(datagram)
            self.assertEqual([type(one) for one in self.asked], [kind])
            is_answer, _, message = self.client.open(answer)
            self.assertTrue(is_answer)
            self.assertEqual(message, Acknowledgement())

    def test_answers(self) -> None:
        """It answers what the DC asks."""
        self.exchange(self.client.keep_alive())
        self.table.request(INDEX, RevocationOrder("x.bob.dc1.ntm.example"), "tag", 1.0)
        [request] = [one.datagram for one in self.table.effects() if hasattr(one, "datagram")]
        is_answer, identifier, _ = self.client.open(request)
        self.assertFalse(is_answer)
        self.exchange(self.client.answer(identifier, Acknowledgement()))
        self.assertEqual(self.answered, [Acknowledgement()])

    def test_like_a_real_one(self) -> None:
        """Its datagrams are as large as a real client's, hello and request."""
        real = ClientSession(INDEX, KEY, (HERE,), urandom)
        real.start(0.0)
        [hello] = real.transmissions()
        self.assertEqual(len(hello.datagram), HELLO_SIZE)
        self.assertEqual(len(self.client.hello()), HELLO_SIZE)
        [welcome] = self.exchange(hello.datagram)
        real.datagram_received(welcome, HERE, 0.0)
        real.conversation.request(KeepAlive(self.client.generation, 120), "tag", 0.0)
        [request] = real.transmissions()
        self.assertEqual(len(request.datagram), len(self.client.keep_alive()))

    def test_forged(self) -> None:
        """What is not of its session does not count as an answer."""
        [answer] = self.exchange(self.client.register())
        forged = answer[:-1] + bytes([answer[-1] ^ 1])
        self.assertRaises(MalformedMessage, self.client.open, forged)


class MemoryTests(SynchronousTestCase):
    """What a DC keeps of each client, without sockets and processes."""

    def held(self, count: int) -> int:
        """Bytes that a DC's machines hold with so many registered clients, beyond their start."""
        realm = MemoryRealm()
        logins = list(logins_of(count, realm.device_ca))
        stored = [stored_client(*login, order) for order, login in enumerate(logins, 1)]
        assigned = {certificate.fqdn: certificate for _, certificate in logins}
        clients = [client for client, _ in logins]
        del logins
        copies = pickle.dumps(stored)  # from the disk nothing is shared
        del stored
        sent: list[bytes] = []
        tracemalloc.start()
        try:
            nobody = cast(Any, None)
            dc = Domain(
                DOMAIN, realm.trust(), nobody, nobody, nobody, Clock(), time.time, (), urandom
            )
            dc.signalling = Signalling(Clock(), SessionTable(urandom), dc.tell)
            port = dc.signalling.port(ipv6=False)
            port.attach(cast(Any, Sender(sent)))
            assignments = Assignments(DOMAIN, IPv4Network(POOL), cast(Any, Assigned(assigned)))
            for one in pickle.loads(copies):
                dc.restore(one)
            for number, client in enumerate(clients):
                address = (f"127.1.{number // 256}.{number % 256}", 4000)
                client.here = Endpoint.of(address)
                port.datagramReceived(client.hello(), address)
                client.welcomed(sent.pop())
                port.datagramReceived(client.register(), address)
                self.assertIsInstance(client.open(sent.pop())[2], RegistrationResponse)
            dc.signalling.stop()
            self.assertEqual(len(dc.clients), count)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
            self.assertIsNotNone(assignments)
            return held
        finally:
            tracemalloc.stop()

    def test_a_client(self) -> None:
        """A registered client takes a DC at most 4 KiB (design, section 9)."""
        self.held(50)  # whatever is made once
        few, many = self.held(50), self.held(550)
        self.assertLess((many - few) / 500, MEMORY)


class Sender:
    """A data port that keeps what it is to send."""

    def __init__(self, sent: list[bytes]) -> None:
        self._sent = sent

    def send(self, datagram: bytes, remote: object) -> bool:
        """Keep it."""
        self._sent.append(datagram)
        return True


class Assigned:
    """A location store that knows addresses only."""

    def __init__(self, certificates: dict[str, DeviceCertificate]) -> None:
        self._certificates = certificates

    def assignments(self) -> dict[str, tuple[bytes, bytes]]:
        """All of them."""
        found = self._certificates.values()
        return {one.fqdn: (one.ipv6.packed, one.ipv4.packed) for one in found}


class RoundsTests(SynchronousTestCase):
    def test_turns(self) -> None:
        """Each client has its turn, as often as a DC remembers its requests and no more."""
        clients = [LoadClient(str(number), b"", b"", b"") for number in range(5)]
        turns = list(rounds(clients, 2))
        self.assertEqual(len(turns), 2 * FOR_ONE)
        self.assertEqual(turns[0], tuple(clients[:2]))
        self.assertEqual(turns[2], turns[0])


class ReportTests(SynchronousTestCase):
    """What is made of the figures."""

    def report(self, rate: Rate) -> Report:
        """A report in which all phases went alike."""
        names = ("first_registrations", "registrations", "keep_alives", "directions")
        logins = {"logins_per_second": 30.0, "enrolment_seconds": 0.15}
        memory = Memory(60 << 20, 460 << 20, 600 << 20, 100_000)
        rates = dict.fromkeys(names, rate)
        return Report(100_000, 64, True, logins, 4.7, memory, rates, ["WARN something"])

    def test_limits(self) -> None:
        """It is said what was busy, so that a slow generator is not taken for a slow DC."""
        latencies = (1.0, 2.0, 3.0)
        self.assertEqual(Rate(10, 1.0, 0.95, 1.1, 0.2, latencies, {}).limit, "coordinator")
        generator = Rate(10, 1.0, 0.5, 0.5, 0.95, latencies, {})
        self.assertEqual(generator.limit, "generator")
        self.assertIn("limited by this load generator", "\n".join(lines(self.report(generator))))
        self.assertEqual(Rate(10, 1.0, 0.5, 0.5, 0.5, latencies, {}).limit, "neither")

    def test_columns(self) -> None:
        """The report fits 80 columns, also with large figures, errors and long lines."""
        errors = {"no answer": 100_000, "x" * 100: 1}
        rate = Rate(999_999, 10.0, 9.9, 12.0, 3.0, (1000.0, 1500.0, 2999.9), errors)
        self.assertEqual([line for line in lines(self.report(rate)) if len(line) > 80], [])

    def test_bars(self) -> None:
        """A bar is met or missed, in each its own direction."""
        rate = Rate(9000, 1.0, 1.0, 1.0, 0.5, (1.0, 1.0, 1.0), {})
        text = "\n".join(lines(self.report(rate)))
        self.assertRegex(text, "registrations/s +9000  bar >= 8000: met")
        self.assertRegex(text, "bytes a client +4194  bar <= 4096: missed")


class LoadTests(SynchronousTestCase):
    """The command, with few clients."""

    def test_small(self) -> None:
        """All phases of a small load are answered, at a tenth of the bars at least."""
        words = ["bench", "load", "--clients", "200", "--seconds", "1", "--logins", "4", "--json"]
        before = set(Path("/tmp").glob("ntmload-*"))
        done = python(NTM, *words)
        self.assertEqual(done.stderr, "")
        found = json.loads(done.stdout)
        self.assertEqual((found["errors"], found["problems"]), (0, []))
        self.assertEqual(found["first_registrations"]["count"], 200)
        self.assertGreater(found["registrations"]["per_second"], REGISTRATIONS / 10)
        self.assertGreater(found["keep_alives"]["per_second"], REGISTRATIONS / 10)
        self.assertGreater(found["directions"]["per_second"], DIRECTIONS / 10)
        self.assertGreater(found["logins"]["logins_per_second"], 0)
        self.assertEqual(set(Path("/tmp").glob("ntmload-*")) - before, set())

    def test_impossible(self) -> None:
        """Where its files cannot be written, it says so in one line."""
        done = python("import tempfile; tempfile.tempdir = '/proc/none'; " + NTM, "bench", "load")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^Error: /proc/none/.*\n$")
