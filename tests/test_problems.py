"""Problem documents (RFC 9457): a client meets the error that the server had."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationError,
    CertificateError,
    InvalidName,
    ItemExpired,
    MalformedMessage,
    NoSuchItem,
    NTMobileError,
    QuotaExceeded,
    StorageFailed,
    StorageFull,
    Unreachable,
)
from ntmobile.wire.problems import DETAIL_LIMIT, KINDS, Problem, error_of, problem_of


class ProblemTests(SynchronousTestCase):
    """There and back."""

    def test_errors(self) -> None:
        """Each error has its status, and its line comes through."""
        for error, status in (
            (MalformedMessage("a"), 400),
            (InvalidName("a"), 400),
            (AuthenticationError("a"), 401),
            (CertificateError("a"), 401),
            (AccessDenied("a"), 403),
            (NoSuchItem("a"), 404),
            (AlreadyExists("a"), 409),
            (ItemExpired("a"), 410),
            (Unreachable("a"), 503),
            (QuotaExceeded("a"), 507),
            (StorageFull("a"), 507),
        ):
            problem = problem_of(error)
            self.assertEqual(problem.kind.status, status, error)
            self.assertEqual(str(error_of(status, problem.document())), "a")

    def test_storage(self) -> None:
        """A storage that fails for another reason than room names no file, and may do it later."""
        problem = problem_of(StorageFailed("/var/lib/secret.sqlite: disk I/O error"))
        self.assertEqual((problem.kind.status, problem.headers), (503, (("Retry-After", "30"),)))
        self.assertNotIn("secret", str(problem))

    def test_kinds(self) -> None:
        """Each kind comes through as the error that a client raises for it."""
        for kind in KINDS.values():
            found = error_of(kind.status, Problem(kind, "why").document())
            self.assertIs(type(found), kind.error)

    def test_others(self) -> None:
        """An error that is not ours says nothing of itself."""
        problem = problem_of(ZeroDivisionError("secret"))
        self.assertEqual(problem.kind.status, 500)
        self.assertNotIn(b"secret", problem.document())

    def test_long(self) -> None:
        """A line has an end."""
        document = json.loads(problem_of(AccessDenied("x" * 5000)).document())
        self.assertEqual(len(document["detail"]), DETAIL_LIMIT)

    def test_no_document(self) -> None:
        """What is no problem document is told by its status alone."""
        for data in (b"", b"<html>", b"[]", b'{"type": 1}', b"[" * 5000):
            self.assertIn("status 502", str(error_of(502, data)))

    def test_unknown_kind(self) -> None:
        """A kind that this version does not know is one line all the same."""
        document = b'{"type":"about:blank","title":"t","status":499,"detail":"some line"}'
        self.assertEqual(str(error_of(499, document)), "some line")

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=600), st.sampled_from([*KINDS, "other"]))
    def test_one_line(self, detail: str, kind: str) -> None:
        """Whatever a server says is one printable line for the one who reads it."""
        document = {"type": f"urn:ntmobile:{kind}", "title": "t", "status": 400, "detail": detail}
        found = error_of(400, json.dumps(document).encode())
        self.assertIsInstance(found, NTMobileError)
        self.assertTrue(str(found) and str(found).isprintable())
