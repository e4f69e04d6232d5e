"""The vectors of ``docs/protocol/login.md``."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.login import attempts
from ntmobile.machines.login.identities import fingerprint, session_proof
from ntmobile.machines.login.proofs import binding_of
from ntmobile.wire.messages.account import (
    enrolment_statement,
    login_statement,
    succession_statement,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocol" / "login.md"


class VectorTests(SynchronousTestCase):
    """What the page says is what the code does."""

    def setUp(self) -> None:
        self.page = PAGE.read_text("utf-8")
        found = re.search(r"```json\n(.*?)```", self.page, re.DOTALL)
        assert found is not None
        self.text: dict[str, str] = json.loads(found.group(1))

    def bytes_of(self, name: str) -> bytes:
        return bytes.fromhex(self.text[name])

    def test_binding(self) -> None:
        """R2: the binding is the exporter's SHA-256."""
        self.assertEqual(binding_of(self.bytes_of("exported")), self.bytes_of("binding"))

    def test_login(self) -> None:
        """R3: the statement of a certificate login, and its signature."""
        key = Ed25519PrivateKey.from_private_bytes(self.bytes_of("identity_private"))
        statement = login_statement(self.bytes_of("binding"), self.text["fqdn"])
        self.assertEqual(statement, self.bytes_of("login_statement"))
        self.assertEqual(key.sign(statement), self.bytes_of("login_proof"))

    def test_enrolment(self) -> None:
        """R2: the statement of an enrolment."""
        statement = enrolment_statement(
            self.bytes_of("binding"),
            "alice@dc1.ntm.example",
            "phone",
            self.bytes_of("identity"),
            self.bytes_of("new_identity"),
            bytes(1216),
        )
        self.assertEqual(sha256(statement).hexdigest(), self.text["enrolment_statement_sha256"])

    def test_succession(self) -> None:
        """R5: the statement of a succession, and its signature."""
        key = Ed25519PrivateKey.from_private_bytes(self.bytes_of("identity_private"))
        statement = succession_statement(
            self.text["fqdn"], self.bytes_of("identity"), self.bytes_of("new_identity")
        )
        self.assertEqual(statement, self.bytes_of("succession_statement"))
        self.assertEqual(key.sign(statement), self.bytes_of("succession"))

    def test_session_proof(self) -> None:
        """R3: the proof of a session on a new connection."""
        proof = session_proof(self.bytes_of("session_key"), self.bytes_of("exported"))
        self.assertEqual(proof, self.bytes_of("session_proof"))

    def test_fingerprint(self) -> None:
        """R5: the digits that two people compare."""
        one = (self.text["fqdn"], self.bytes_of("identity"))
        other = (self.text["peer"], self.bytes_of("new_identity"))
        self.assertEqual(fingerprint(other, one), self.text["fingerprint"])

    def test_limits(self) -> None:
        """R2: the limits that the page names are those of the code."""
        for burst, interval in (
            (attempts.PAIR_BURST, attempts.PAIR_INTERVAL),
            (attempts.USER_BURST, attempts.USER_INTERVAL),
            (attempts.SOURCE_BURST, attempts.SOURCE_INTERVAL),
            (attempts.DEVICE_BURST, attempts.DEVICE_INTERVAL),
            (attempts.FAILURE_BURST, attempts.FAILURE_INTERVAL),
        ):
            self.assertIn(f"| {burst} | {interval:g} s |", self.page)
