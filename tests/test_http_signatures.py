"""Signed requests (R28): the examples of RFC 9421, and what is refused."""

from __future__ import annotations

import base64
import re
from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import AuthenticationError, MalformedMessage
from ntmobile.lab.supervision import ROOT
from ntmobile.machines.exchange.nonces import NonceMemory
from ntmobile.wire.http_digests import content_digest, parse_content_digest
from ntmobile.wire.http_signatures import (
    FRESH,
    Ed25519Signer,
    Ed25519Verifier,
    HmacKey,
    Request,
    parse,
    sign,
    sign_components,
    signature_base,
)
from ntmobile.wire.problems import KINDS, Problem
from ntmobile.wire.structured_fields import InnerList, Item

DIGEST = "WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew=="
#: The request of RFC 9421, appendix B.2.
EXAMPLE = Request(
    "POST",
    "/foo",
    "param=Value&Pet=dog",
    "example.com",
    {
        "date": ["Tue, 20 Apr 2021 02:07:55 GMT"],
        "content-type": ["application/json"],
        "content-digest": [f"sha-512=:{DIGEST}:"],
        "content-length": ["18"],
    },
)
#: Appendix B.1.5 and B.1.4.
SHARED = base64.b64decode(
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
)
PRIVATE = base64.b64decode("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF")
PUBLIC = base64.b64decode("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")
NOW = 1_800_000_000
KEY = HmacKey(bytes(range(32)))


def example_key() -> Ed25519PrivateKey:
    """The private key of the example."""
    key = load_der_private_key(PRIVATE, None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


class ExampleTests(SynchronousTestCase):
    """The examples of the RFC that use what is used here (R28)."""

    def test_hmac(self) -> None:
        """Appendix B.2.5: HMAC-SHA-256."""
        parameters = (("created", 1618884473), ("keyid", "test-shared-secret"))
        components = ("date", "@authority", "content-type")
        self.assertEqual(
            sign_components(EXAMPLE, HmacKey(SHARED), components, parameters, "sig-b25"),
            {
                "signature-input": 'sig-b25=("date" "@authority" "content-type")'
                ';created=1618884473;keyid="test-shared-secret"',
                "signature": "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
            },
        )

    def test_ed25519(self) -> None:
        """Appendix B.2.6: Ed25519."""
        parameters = (("created", 1618884473), ("keyid", "test-key-ed25519"))
        components = (
            "date", "@method", "@path", "@authority", "content-type", "content-length",
        )  # fmt: skip
        signer = Ed25519Signer(example_key())
        found = sign_components(EXAMPLE, signer, components, parameters, "sig-b26")
        self.assertEqual(
            found["signature"],
            "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5l"
            "Ip5WPpBKRCw==:",
        )
        covered = InnerList(tuple(Item(name) for name in components), parameters)
        signature = base64.b64decode(found["signature"].split(":")[1])
        verifier = Ed25519Verifier(PUBLIC)
        self.assertTrue(verifier.is_valid(signature_base(EXAMPLE, covered), signature))
        self.assertFalse(verifier.is_valid(b"another", signature))

    def test_full_coverage(self) -> None:
        """Appendix B.2.3: the base of a signature over all that this request has."""
        components = (
            "date", "@method", "@path", "@query", "@authority", "content-type", "content-digest",
            "content-length",
        )  # fmt: skip
        parameters = (("created", 1618884473), ("keyid", "test-key-rsa-pss"))
        covered = InnerList(tuple(Item(name) for name in components), parameters)
        self.assertEqual(
            signature_base(EXAMPLE, covered).decode(),
            '"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
            '"@method": POST\n'
            '"@path": /foo\n'
            '"@query": ?param=Value&Pet=dog\n'
            '"@authority": example.com\n'
            '"content-type": application/json\n'
            f'"content-digest": {EXAMPLE.fields["content-digest"][0]}\n'
            '"content-length": 18\n'
            '"@signature-params": ("date" "@method" "@path" "@query" "@authority" "content-type" '
            '"content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"',
        )

    def test_minimal(self) -> None:
        """Appendix B.2.1: the base of a signature over nothing but its own parameters."""
        covered = InnerList(
            (),
            (
                ("created", 1618884473),
                ("keyid", "test-key-rsa-pss"),
                ("nonce", "b3k2pp5k7z-50gnwp.yemd"),
            ),
        )
        self.assertEqual(
            signature_base(EXAMPLE, covered),
            b'"@signature-params": ();created=1618884473;keyid="test-key-rsa-pss"'
            b';nonce="b3k2pp5k7z-50gnwp.yemd"',
        )


def signed(request: Request, key: Any = KEY, **changes: Any) -> Request:
    """A request with its signature."""
    values: dict[str, Any] = {"keyid": "aa", "created": NOW, "nonce": bytes(16)} | changes
    fields = {name: [value] for name, value in sign(request, key, **values).items()}
    return evolve(request, fields={**request.fields, **fields})


PLAIN = Request("GET", "/v1/objects/00", "", "", {})
BODY = Request("PUT", "/v1/x", "a=1", "", {"content-digest": [content_digest(b"body")]})


class VerificationTests(SynchronousTestCase):
    """What a server takes for signed, and what not (R28)."""

    def refused(self, request: Request, now: float = NOW, key: Any = KEY, **more: Any) -> str:
        """Why a request is refused."""
        with self.assertRaises((AuthenticationError, MalformedMessage)) as caught:
            parse(request).verify(key, now, **more)
        return str(caught.exception)

    def test_right(self) -> None:
        """A signed request is taken, and says by which key and nonce."""
        found = parse(signed(BODY))
        found.verify(KEY, NOW)
        self.assertEqual((found.keyid, found.nonce, found.created), ("aa", bytes(16), NOW))

    def test_every_part(self) -> None:
        """A change of method, path, query or digest makes the signature wrong (R28)."""
        right = signed(BODY)
        digest = {**right.fields, "content-digest": [content_digest(b"other")]}
        for other in (
            evolve(right, method="POST"),
            evolve(right, path="/v1/y"),
            evolve(right, query="a=2"),
            evolve(right, fields=digest),
        ):
            self.assertIn("not right", self.refused(other))

    def test_age(self) -> None:
        """A signature counts for 300 s by the server's clock, before and after (R28)."""
        right = signed(PLAIN)
        parse(right).verify(KEY, NOW + FRESH)
        parse(right).verify(KEY, NOW - FRESH)
        self.assertIn("301 s old", self.refused(right, NOW + FRESH + 1))
        self.assertIn("301 s in the future", self.refused(right, NOW - FRESH - 1))

    def test_coverage(self) -> None:
        """A signature that leaves out what must be signed is refused (R28)."""
        parameters = (
            ("created", NOW),
            ("nonce", base64.b64encode(bytes(16)).decode()),
            ("keyid", "aa"),
            ("alg", "hmac-sha256"),
        )
        for left_out in ("@method", "@path", "@query", "content-digest"):
            names = {"@method", "@path", "@query", "content-digest"} - {left_out}
            fields = sign_components(BODY, KEY, sorted(names), parameters, "x")
            request = evolve(BODY, fields={**BODY.fields, **{k: [v] for k, v in fields.items()}})
            self.assertIn(f"does not cover {left_out}", self.refused(request))
        self.assertIn("ntm-server", self.refused(signed(PLAIN), required=["ntm-server"]))

    def test_algorithm(self) -> None:
        """What is signed in another way than the key's is refused."""
        request = signed(PLAIN, Ed25519Signer(example_key()))
        parse(request).verify(Ed25519Verifier(PUBLIC), NOW)
        self.assertIn("not right", self.refused(request))
        self.assertIn("not right", self.refused(signed(PLAIN), key=Ed25519Verifier(PUBLIC)))
        # An HMAC with a public key as key: known to everybody.
        confused = signed(PLAIN, HmacKey(PUBLIC))
        self.assertIn("not right", self.refused(confused, key=Ed25519Verifier(PUBLIC)))

    def test_unsigned(self) -> None:
        """A request without signature is told how to get one."""
        self.assertIn("not signed", self.refused(PLAIN))

    def test_malformed(self) -> None:
        """Signatures of another form are malformed."""
        right = signed(PLAIN)
        [one], [code] = right.fields["signature-input"], right.fields["signature"]
        for field, value in (
            ("signature-input", one + ", b=()"),
            ("signature-input", "ntm=1"),
            ("signature-input", one.replace("ntm=", "other=")),
            ("signature-input", one.replace("nonce=", "ponce=")),
            ("signature-input", one.replace('AAA=="', 'AAA="')),
            ("signature-input", one.replace(f"created={NOW}", "created=?1")),
            ("signature-input", one.replace(f"created={NOW}", "created=-1")),
            ("signature-input", one.replace('keyid="aa"', 'keyid=""')),
            ("signature", "ntm=1"),
            ("signature", code + ";a=1"),
            ("signature", code + "\x00"),
        ):
            changed = evolve(right, fields={**right.fields, field: [value]})
            with self.assertRaises(MalformedMessage, msg=value):
                parse(changed)

    def test_components(self) -> None:
        """Components that are not there, not supported, or twice, are malformed."""
        for item in (
            Item("x-missing"),
            Item("@target-uri"),
            Item("@path", (("req", True),)),
            Item(1),
        ):
            self.assertRaises(MalformedMessage, signature_base, PLAIN, InnerList((item,)))
        twice = InnerList((Item("@path"), Item("@path")))
        self.assertRaises(MalformedMessage, signature_base, PLAIN, twice)

    def test_line_breaks(self) -> None:
        """A value cannot bring a line of its own into what is signed."""
        for text in ('a\n"@path": /b', "a\r", "é", "a\x00"):
            request = Request("GET", "/", fields={"x": [text]})
            self.assertRaises(MalformedMessage, signature_base, request, InnerList((Item("x"),)))

    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def test_mutations(self, data: st.DataObject) -> None:
        """A changed character in a signature is refused, and raises nothing else."""
        right = signed(PLAIN)
        name = data.draw(st.sampled_from(["signature-input", "signature"]))
        text = right.fields[name][0]
        at = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.characters(max_codepoint=255))
        changed = text[:at] + other + text[at + 1 :]
        if changed in (text, text.replace("ntm=", " ntm=")):
            return
        with self.assertRaises((AuthenticationError, MalformedMessage)):
            request = evolve(right, fields={**right.fields, name: [changed]})
            parse(request).verify(KEY, NOW)


class DocumentTests(SynchronousTestCase):
    """The page on stored data over HTTP."""

    def test_example(self) -> None:
        """Its example of a signed request is what is signed (R28)."""
        page = (ROOT / "docs" / "protocol" / "exchange-http.md").read_text(encoding="utf-8")
        found = re.search(r"^<!-- vector: signed -->\n```text\n(.*?)^```$", page, re.M | re.S)
        assert found is not None
        first, *lines = found[1].splitlines()
        method, path, _ = first.split()
        fields = {name.lower(): [value] for name, _, value in (x.partition(": ") for x in lines)}
        parsed = parse(Request(method, path, fields=fields))
        parsed.verify(HmacKey(bytes(range(32))), 1_790_000_000)
        self.assertEqual((parsed.keyid, parsed.nonce), ("aa" * 16, bytes(16)))

    def test_problems(self) -> None:
        """It has every kind of problem."""
        page = (ROOT / "docs" / "protocol" / "exchange-http.md").read_text(encoding="utf-8")
        rows = set(re.findall(r"^\| (\d+) \| `([a-z]+)` \|", page, re.M))
        self.assertEqual(rows, {(str(kind.status), kind.name) for kind in KINDS.values()})


class DigestTests(SynchronousTestCase):
    """Content-Digest."""

    def test_example(self) -> None:
        """The SHA-256 of the example in RFC 9530, appendix B.1, beside another algorithm or not."""
        text = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
        self.assertEqual(content_digest(b'{"hello": "world"}\n'), text)
        digest = parse_content_digest(text)
        self.assertEqual(parse_content_digest(f"md5=:AAAA:, {text}"), digest)

    def test_refused(self) -> None:
        """Fields without a SHA-256 of its length are malformed."""
        for text in ("", "sha-512=:AAAA:", "sha-256=:AAAA:", "sha-256=1", "sha-256=()", "sha-256"):
            self.assertRaises(MalformedMessage, parse_content_digest, text)


class NonceTests(SynchronousTestCase):
    """The memory of nonces (R28)."""

    def test_once(self) -> None:
        """R28: a nonce is good once for a key, as long as its signature would be."""
        memory = NonceMemory()
        memory.use("a", b"1", NOW, NOW)
        memory.use("b", b"1", NOW, NOW)
        for later in (0, 299, FRESH):
            self.assertRaises(AuthenticationError, memory.use, "a", b"1", NOW, NOW + later)

    def test_future(self) -> None:
        """A nonce whose time is ahead is remembered until it is past by as much."""
        memory = NonceMemory()
        memory.use("a", b"1", NOW + FRESH, NOW)
        memory.use("a", b"2", NOW + 2 * FRESH, NOW + 2 * FRESH)
        self.assertRaises(AuthenticationError, memory.use, "a", b"1", NOW + FRESH, NOW + 2 * FRESH)

    def test_forgotten(self) -> None:
        """What is too old to be taken is not remembered."""
        memory = NonceMemory()
        for number in range(10):
            memory.use("a", bytes([number]), NOW, NOW)
        memory.use("a", b"x", NOW + 500, NOW + 500)
        self.assertEqual(len(memory), 1)

    def test_bounds(self) -> None:
        """One key has its share, and all together have no more than there is."""
        memory = NonceMemory(per_key=2, total=3)
        memory.use("a", b"1", NOW, NOW)
        memory.use("a", b"2", NOW - 100, NOW)
        self.assertRaises(Problem, memory.use, "a", b"3", NOW, NOW)
        memory.use("b", b"3", NOW, NOW)
        self.assertRaises(Problem, memory.use, "c", b"4", NOW, NOW)
        memory.use("a", b"3", NOW + 500, NOW + 500)
