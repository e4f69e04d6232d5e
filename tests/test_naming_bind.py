from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("named", "dig", "unshare", "ip")


def namespaces() -> list[str]:
    """How to get a network namespace here: as an ordinary user, or else as root."""
    tried = [["unshare", "-Urnm"]] + ([["unshare", "-nm"]] if os.geteuid() == 0 else [])
    for command in tried:
        if not subprocess.run([*command, "true"], capture_output=True).returncode:
            return [*command, "--fork", "--kill-child"]
    raise SkipTest("this system forbids network namespaces to ordinary users")


class BehindBindTests(SynchronousTestCase):
    """Real delegation: BIND, minimising names strictly, resolves through our name servers."""

    world: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        if not self.world:
            os.environ["PATH"] += ":/usr/sbin:/sbin"
            missing = [tool for tool in TOOLS if not shutil.which(tool)]
            if missing:
                raise SkipTest(f"needs {', '.join(missing)} (Debian: bind9, dnsutils, iproute2)")
            BehindBindTests.world = self.build()

    def build(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="ntmobile-bind-") as directory:
            done = subprocess.run(
                [*namespaces(), sys.executable, "-m", "tests.naming_bind_world", directory],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=90,
            )
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        world: dict[str, Any] = json.loads(done.stdout)
        return world

    def assertAnswer(self, question: str, *records: str) -> None:
        found = self.world[question]
        self.assertEqual(found["status"], "NOERROR", found["text"])
        self.assertEqual(sorted(found.get("answer", [])), sorted(records))

    def assertNothing(self, question: str, status: str) -> None:
        found = self.world[question]
        self.assertEqual((found["status"], found.get("answer")), (status, None), found["text"])
        self.assertIn("IN SOA ns.dc1.ntm.example.", found["authority"][0])

    def test_devices(self) -> None:
        """A device's virtual addresses are found through three labels of minimised names."""
        self.assertAnswer("device", "phone.alice.dc1.ntm.example. IN AAAA fd12::20")
        self.assertAnswer("device4", "phone.alice.dc1.ntm.example. IN A 198.18.0.20")

    def test_users(self) -> None:
        """A user's name gives his last device's address; NODATA where none has registered."""
        self.assertAnswer("user", "alice.dc1.ntm.example. IN AAAA fd12::20")
        self.assertNothing("deviceless user", "NOERROR")

    def test_services(self) -> None:
        """SRV is found below the empty non-terminals, which are NODATA themselves."""
        for transport in ("tcp", "udp"):
            self.assertAnswer(
                transport,
                f"_ntm._{transport}.dc1.ntm.example. IN SRV 0 0 4330 ns.dc1.ntm.example.",
            )
        self.assertNothing("empty", "NOERROR")

    def test_apex(self) -> None:
        """NS, SOA and the name server's address are the zone's own, not the parent's."""
        self.assertAnswer("ns", "dc1.ntm.example. IN NS ns.dc1.ntm.example.")
        self.assertAnswer("host", "ns.dc1.ntm.example. IN AAAA 2001:db8::53")
        self.assertIn("hostmaster.dc1.ntm.example.", self.world["soa"]["answer"][0])
        self.assertEqual(self.world["ipv6"]["status"], "NOERROR")

    def test_nobody(self) -> None:
        """A name that nobody has is NXDOMAIN."""
        self.assertNothing("nobody", "NXDOMAIN")

    def test_strangers(self) -> None:
        """Who is in no configured network cannot tell a device from an invention."""
        for question in ("stranger", "invented"):
            self.assertNothing(question, "NXDOMAIN")

    def test_case(self) -> None:
        """The case of the question is kept."""
        self.assertAnswer("case", "pHone.aLice.DC1.ntm.example. IN A 198.18.0.20")

    def test_transfer(self) -> None:
        """The zone cannot be transferred."""
        self.assertIn("Transfer failed", self.world["transfer"]["text"])

    def test_large_answers(self) -> None:
        """An answer too long for UDP is fetched over TCP, by dig and by BIND."""
        for question in ("big", "big through BIND"):
            self.assertEqual(len(self.world[question]["answer"]), 51)
            self.assertTrue(self.world[question]["tcp"])

    def test_response_rate(self) -> None:
        """R8: a resolver over the response rate still has its answers, by way of TCP."""
        for number in range(4):
            self.assertEqual(self.world[f"limited {number}"]["status"], "NXDOMAIN")
        counts = self.world["counts"][1]
        self.assertGreater(counts["limited"], 0)
        self.assertGreater(counts["slipped"], 0)

    def test_bind_has_no_complaint(self) -> None:
        """BIND logs no lame server, no format error, no fallback for us."""
        complaints = ("lame", "formerr", "unexpected", "broken", "timed out", "fail")
        lines = [
            line
            for line in self.world["log"].lower().splitlines()
            if "dc1.ntm.example" in line and any(word in line for word in complaints)
        ]
        self.assertEqual(lines, [])

    def test_lookup(self) -> None:
        """R14: the ``dns`` lookup finds a coordinator through BIND, or says why not."""
        found = self.world["lookups"]
        self.assertIn("('192.0.2.53', 4330)", found["dc1"])
        self.assertIn("('2001:db8::53', 4330)", found["dc1"])
        self.assertIn("UnknownName: no coordinator of nobody.ntm.example", found["nobody"])
        self.assertIn("NXDOMAIN to nobody.ntm.example NS", found["nobody"])
        self.assertIn("Unreachable: ", found["dead"])
        self.assertIn("SERVFAIL", found["dead"])
        self.assertIn("is an alias", found["alias"])
