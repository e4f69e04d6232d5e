"""Device certificates and the authorities that decide about them (R1, R4, R22)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import CertificateError, CertificateNotCurrent, InvalidName
from ntmobile.servers.authority import (
    Signer,
    issue_device,
    issue_device_ca,
    issue_root,
    issue_server,
)
from ntmobile.wire import names, virtual
from ntmobile.wire.certificates import (
    DEVICE_EXTENSION,
    DEVICE_LIMIT,
    Authority,
    DeviceCertificate,
    TrustStore,
    key_id,
    parse_role,
    role_of,
    role_uri,
    roles_of,
    speaks_for,
)
from tests.realms import MemoryRealm

PHONE, DC1 = "phone.alice.dc1.ntm.example", "dc1.ntm.example"
NOW = 1_800_000_000.0
REALM = MemoryRealm(now=NOW)
VALID = REALM.device(PHONE)[2]


class DeviceTests(SynchronousTestCase):
    """R4: what a device certificate says, in at most 400 bytes."""

    def test_content(self) -> None:
        """It says who, with which keys and virtual addresses, from when until when."""
        identity, static, found = REALM.device(PHONE)
        self.assertEqual(found.fqdn, PHONE)
        self.assertEqual(found.identity, identity.public_key().public_bytes_raw())
        self.assertEqual(found.x25519, static.public_key().public_bytes_raw())
        self.assertEqual(len(found.xwing_hash), 32)
        self.assertEqual(found.ipv6, virtual.address_of(DC1, PHONE))
        self.assertEqual(found.ipv4, virtual.pick_ipv4(virtual.POOL, PHONE, ()))
        self.assertEqual(found.not_after, NOW + 86400)
        self.assertLessEqual(found.not_before, NOW)
        device_ca = REALM.device_ca.key.public_key().public_bytes_raw()
        self.assertEqual(found.issuer, key_id(device_ca))
        self.assertEqual(DeviceCertificate.parse(found.der), found)

    def test_size(self) -> None:
        """R4: with the longest name, and after 2049, it has at most 400 bytes."""
        tail = ".alice.dc1.ntm.example"
        longest = "p" * (names.FQDN_LIMIT - len(tail)) + tail
        sizes = []
        for now in (NOW, 2_600_000_000.0):
            realm = MemoryRealm(now=NOW)
            realm.now = now
            sizes.append(len(realm.device(longest)[2].der))
        self.assertEqual(sizes, [395, 399])
        self.assertLessEqual(max(sizes), DEVICE_LIMIT)

    def test_serials(self) -> None:
        """Serial numbers differ, and fit 63 bits for databases."""
        serials = {REALM.certify(VALID).serial for _ in range(50)}
        self.assertEqual(len(serials), 50)
        self.assertTrue(all(0 < each < 2**63 for each in serials))

    def test_not_issued(self) -> None:
        """No certificate is made for what is no device, or for keys that are none."""

        def issue(**changes: Any) -> None:
            values: dict[str, Any] = {
                "fqdn": PHONE,
                "identity": bytes(32),
                "x25519": bytes(32),
                "xwing_hash": bytes(32),
                "ipv6": VALID.ipv6,
                "ipv4": VALID.ipv4,
                "now": NOW,
            }
            issue_device(REALM.device_ca, **(values | changes))

        issue()
        self.assertRaises(InvalidName, issue, fqdn="alice.example")
        self.assertRaises(CertificateError, issue, identity=bytes(31))
        self.assertRaises(CertificateError, issue, x25519=bytes(33), xwing_hash=bytes(31))
        self.assertRaises(CertificateError, issue, ipv4=IPv4Address("224.0.0.1"))

    @given(st.binary(max_size=500))
    def test_garbage(self, data: bytes) -> None:
        """R11: bytes of any kind are one error."""
        self.assertRaises(CertificateError, DeviceCertificate.parse, data)

    @given(st.integers(0, len(VALID.der) - 1), st.integers(1, 255))
    def test_altered(self, place: int, change: int) -> None:
        """R4: a certificate in which any byte was changed is not accepted."""
        altered = bytearray(VALID.der)
        altered[place] ^= change
        verify = REALM.trust().verify_device
        self.assertRaises(CertificateError, verify, bytes(altered), NOW)

    def test_unused_bits(self) -> None:
        """R4: a signature that ends in zero bits has one encoding, not one for each of them."""
        verify = REALM.trust().verify_device
        found = next(
            one for one in (REALM.certify(VALID) for _ in range(4000)) if not one.der[-1] & 7
        )
        verify(found.der, NOW)
        for unused in range(1, 8):
            altered = bytearray(found.der)
            altered[-65] = unused
            self.assertRaises(CertificateError, verify, bytes(altered), NOW)

    @given(st.integers(0, len(VALID.der) - 1))
    def test_truncated(self, length: int) -> None:
        """R11: a truncated certificate is one error, and so is one with a tail."""
        self.assertRaises(CertificateError, DeviceCertificate.parse, VALID.der[:length])
        self.assertRaises(
            CertificateError, DeviceCertificate.parse, VALID.der + b"\0" * (length + 1)
        )


def forged(change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder]) -> bytes:
    """A certificate signed by the true device-CA, as ``change`` completes it."""
    moment = datetime.fromtimestamp(NOW, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(REALM.device_ca.certificate.subject)
        .serial_number(1)
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=1))
    )
    return change(builder).sign(REALM.device_ca.key, None).public_bytes(Encoding.DER)


def san(*entries: x509.GeneralName) -> x509.SubjectAlternativeName:
    """A subject alternative name extension."""
    return x509.SubjectAlternativeName(list(entries))


PRIVATE = x509.UnrecognizedExtension(
    DEVICE_EXTENSION, bytes(64) + VALID.ipv6.packed + VALID.ipv4.packed
)
KEY = Ed25519PrivateKey.generate().public_key()


class FormTests(SynchronousTestCase):
    """R4: what is signed, but not of the form of a device certificate, is refused."""

    def refuse(self, change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder]) -> None:
        """Both parsing and verifying refuse."""
        der = forged(change)
        self.assertRaises(CertificateError, DeviceCertificate.parse, der)
        self.assertRaises(CertificateError, REALM.trust().verify_device, der, NOW)

    def test_good(self) -> None:
        """The form from which the others differ is accepted."""
        der = forged(
            lambda builder: (
                builder.public_key(KEY)
                .add_extension(san(x509.DNSName(PHONE)), True)
                .add_extension(PRIVATE, False)
            )
        )
        self.assertEqual(REALM.trust().verify_device(der, NOW).fqdn, PHONE)

    def test_two_names(self) -> None:
        """It names exactly one FQDN."""
        for entries in ((), (x509.DNSName(PHONE), x509.DNSName("a" + PHONE))):
            self.refuse(partial(named, entries))

    def test_other_names(self) -> None:
        """The name is a DNS name, and a device's."""
        for entry in (
            x509.UniformResourceIdentifier(role_uri("dc", DC1)),
            x509.DNSName("alice.example"),
            x509.DNSName("*.alice.dc1.ntm.example"),
            x509.DNSName("phone.ns.dc1.ntm.example"),
        ):
            self.refuse(partial(named, (entry,)))

    def test_no_keys(self) -> None:
        """The extension with the keys is there and of its exact length."""
        self.refuse(
            lambda builder: builder.public_key(KEY).add_extension(san(x509.DNSName(PHONE)), True)
        )
        short = x509.UnrecognizedExtension(DEVICE_EXTENSION, bytes(83))
        self.refuse(
            lambda builder: (
                builder.public_key(KEY)
                .add_extension(san(x509.DNSName(PHONE)), True)
                .add_extension(short, False)
            )
        )

    def test_authority(self) -> None:
        """It is no authority, and has no other critical extension."""
        self.refuse(
            lambda builder: (
                builder.public_key(KEY)
                .add_extension(san(x509.DNSName(PHONE)), True)
                .add_extension(PRIVATE, False)
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            )
        )

    def test_other_key(self) -> None:
        """Its key is of Ed25519."""
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        self.refuse(
            lambda builder: (
                builder.public_key(key)
                .add_extension(san(x509.DNSName(PHONE)), True)
                .add_extension(PRIVATE, False)
            )
        )


class TrustTests(SynchronousTestCase):
    """R1: the longest label-wise suffix selects the one authority for a name."""

    def setUp(self) -> None:
        self.other = MemoryRealm("else.example", now=NOW)
        self.trust = REALM.trust(self.other)

    def test_accepted(self) -> None:
        """A device of a trusted realm is accepted and taken apart."""
        self.assertEqual(self.trust.verify_device(VALID.der, NOW), VALID)
        foreign = self.other.device("phone.bob.dc.else.example")[2]
        self.assertEqual(self.trust.verify_device(foreign, NOW), foreign)

    def test_time(self) -> None:
        """R12: it holds from when until when it says, at a time that is given."""
        verify = self.trust.verify_device
        verify(VALID, VALID.not_before)
        verify(VALID, VALID.not_after)
        verify(VALID, None)
        late = self.assertRaises(CertificateNotCurrent, verify, VALID, VALID.not_after + 1)
        self.assertIn("expired", str(late))
        self.assertRaises(CertificateNotCurrent, verify, VALID, VALID.not_before - 1)

    def test_expired_authority(self) -> None:
        """A certificate does not outlive the authority that signed it."""
        realm = MemoryRealm(now=NOW)
        long = realm.device(PHONE, lifetime=40 * 365 * 86400)[2]
        after = NOW + 21 * 365 * 86400
        self.assertRaises(CertificateNotCurrent, realm.trust().verify_device, long, after)

    def test_no_authority(self) -> None:
        """A name that no suffix covers is refused."""
        stranger = MemoryRealm("third.example", now=NOW).device("phone.eve.dc.third.example")[2]
        error = self.assertRaises(CertificateError, self.trust.verify_device, stranger, NOW)
        self.assertIn("no authority is trusted for phone.eve.dc.third.example", str(error))

    def test_authority_of_another_suffix(self) -> None:
        """R1: a trusted foreign authority cannot sign for names of this realm."""
        forgery = self.other.device(PHONE)[2]
        self.assertRaises(CertificateError, self.trust.verify_device, forgery, NOW)

    def test_longest_suffix(self) -> None:
        """R1: where a realm lies within another's suffix, only the inner one decides."""
        outer, inner = MemoryRealm("example", now=NOW), MemoryRealm("ntm.example", now=NOW)
        trust = TrustStore.of(outer.authority, inner.authority)
        trust.verify_device(inner.device(PHONE)[2], NOW)
        self.assertRaises(CertificateError, trust.verify_device, outer.device(PHONE)[2], NOW)
        self.assertTrue(trust.is_home("dc.other.example"))
        self.assertFalse(trust.is_home(DC1))

    def test_whole_labels(self) -> None:
        """R1: a suffix is one of labels, not of letters."""
        neighbour = REALM.device("phone.alice.evil-ntm.example")[2]
        self.assertRaises(CertificateError, self.trust.verify_device, neighbour, NOW)

    def test_signed_by_the_root(self) -> None:
        """R1: devices are certified by the device-CA, not by the root, nor by a server."""
        server = issue_server(REALM.root, "dc", DC1, KEY, datetime.fromtimestamp(NOW, UTC))
        for signer in (REALM.root.certificate, server):
            realm = MemoryRealm(now=NOW)
            realm.device_ca = Signer(signer, realm.device_ca.key)
            forgery = realm.device(PHONE)[2]
            self.assertRaises(CertificateError, self.trust.verify_device, forgery, NOW)

    def test_other_key_of_the_same_name(self) -> None:
        """An issuer's name proves nothing."""
        realm = MemoryRealm(now=NOW)
        realm.device_ca = Signer(REALM.device_ca.certificate, realm.device_ca.key)
        forgery = realm.device(PHONE)[2]
        self.assertEqual(forgery.issuer, VALID.issuer)
        error = self.assertRaises(CertificateError, self.trust.verify_device, forgery, NOW)
        self.assertIn("wrong signature", str(error))

    def test_address_of_another_domain(self) -> None:
        """R22: its IPv6 address lies in the prefix of its domain."""
        stolen = issue_device(
            REALM.device_ca,
            fqdn=PHONE,
            identity=VALID.identity,
            x25519=VALID.x25519,
            xwing_hash=VALID.xwing_hash,
            ipv6=IPv6Address("fd00::1:2:3:4"),
            ipv4=VALID.ipv4,
            now=NOW,
        )
        self.assertRaises(CertificateError, self.trust.verify_device, stolen, NOW)

    def test_next_device_authority(self) -> None:
        """A bundle may hold two device-CAs, so that one can follow the other."""
        moment = datetime.fromtimestamp(NOW, UTC)
        old, new = (issue_device_ca(REALM.root, "ntm.example", moment) for _ in range(2))
        bundle = b"".join(
            each.certificate.public_bytes(Encoding.PEM) for each in (REALM.root, old, new)
        )
        trust = TrustStore.of(Authority.from_pem("ntm.example", bundle))
        realm = MemoryRealm(now=NOW)
        for signer in (old, new):
            realm.device_ca = signer
            trust.verify_device(realm.device(PHONE)[2], NOW)
        self.assertRaises(CertificateError, trust.verify_device, VALID, NOW)


SERVER = REALM.server("dc", DC1)[1][0].public_bytes(Encoding.DER)
AUTHORITIES = [
    each.public_bytes(Encoding.DER)
    for each in (REALM.root.certificate, REALM.device_ca.certificate)
]


def named(
    entries: Sequence[x509.GeneralName], builder: x509.CertificateBuilder
) -> x509.CertificateBuilder:
    """A device's certificate with these alternative names."""
    return builder.public_key(KEY).add_extension(san(*entries), True).add_extension(PRIVATE, False)


class AlteredTests(SynchronousTestCase):
    """R11: what is wrong in a certificate may show only when that part of it is looked at."""

    @given(st.integers(0, len(SERVER) - 1), st.integers(1, 255))
    @example(SERVER.index(b"\xa0\x03\x02\x01\x02") + 4, 0x7D)  # its version
    @example(SERVER.index(b"ntm.example root") - 1, 0x7F)  # its issuer
    def test_server(self, place: int, change: int) -> None:
        """A server's certificate in which any byte was changed is one error."""
        assume(place != len(SERVER) - 65)  # as below
        altered = bytearray(SERVER)
        altered[place] ^= change
        verify = REALM.trust().verify_server
        self.assertRaises(CertificateError, verify, [bytes(altered)], "dc", DC1, NOW)

    @given(st.sampled_from((0, 1)), st.integers(0, 300), st.integers(1, 255))
    @example(0, AUTHORITIES[0].index(b"\xa0\x03\x02\x01\x02") + 4, 0x7D)
    @example(1, AUTHORITIES[1].index(b"ntm.example root") - 1, 0x7F)
    def test_bundle(self, which: int, place: int, change: int) -> None:
        """So is a bundle."""
        altered = [bytearray(each) for each in AUTHORITIES]
        # How many bits of the signature's last byte do not count is not looked at where they are 0.
        assume(place != len(altered[which]) - 65)
        altered[which][place] ^= change
        pem = "".join(ssl.DER_cert_to_PEM_cert(bytes(each)) for each in altered)
        self.assertRaises(CertificateError, Authority.from_pem, None, pem.encode())


class BundleTests(SynchronousTestCase):
    """What can be a realm's ``ca.pem``."""

    def test_round_trip(self) -> None:
        """A bundle that is written is read as the same."""
        again = Authority.from_pem("ntm.example", REALM.authority.to_pem())
        self.assertEqual(again, REALM.authority)
        self.assertEqual(again.realm, "ntm.example")
        self.assertEqual(Authority.from_pem(None, REALM.authority.to_pem()), again)

    def test_other_suffix(self) -> None:
        """A foreign realm may be trusted for less than its whole domain."""
        trust = REALM.trust()
        part = TrustStore.of(Authority.from_pem("dc2.ntm.example", REALM.authority.to_pem()))
        trust.verify_device(VALID, NOW)
        self.assertRaises(CertificateError, part.verify_device, VALID, NOW)

    def test_refused(self) -> None:
        """Anything else is one error."""
        moment = datetime.fromtimestamp(NOW, UTC)
        root, other = issue_root("ntm.example", moment), issue_root("ntm.example", moment)
        device_ca, foreign = (
            issue_device_ca(each, "ntm.example", moment) for each in (root, other)
        )
        renamed = issue_device_ca(root, "else.example", moment)
        server = issue_server(root, "dc", DC1, KEY, moment)

        def pem(*certificates: x509.Certificate) -> bytes:
            return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)

        for bundle in (
            b"",
            b"no PEM",
            pem(root.certificate)[:200],
            pem(root.certificate),
            pem(device_ca.certificate),
            pem(root.certificate, other.certificate, device_ca.certificate),
            pem(root.certificate, foreign.certificate),
            pem(root.certificate, renamed.certificate),
            pem(root.certificate, device_ca.certificate, server),
            pem(root.certificate, device_ca.certificate) * 200,
        ):
            self.assertRaises(CertificateError, Authority.from_pem, "ntm.example", bundle)

    def test_foreign_algorithm(self) -> None:
        """A root that is not of Ed25519 is refused."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([])
        moment = datetime.fromtimestamp(NOW, UTC)
        root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(moment)
            .not_valid_after(moment + timedelta(days=1))
            .add_extension(san(x509.UniformResourceIdentifier("ntm:root:ntm.example")), False)
            .sign(key, SHA256())
        )
        pem = root.public_bytes(Encoding.PEM)
        self.assertRaises(CertificateError, Authority.from_pem, "ntm.example", pem)


class RoleTests(SynchronousTestCase):
    """R1: roles stand in URIs."""

    def test_uri(self) -> None:
        """Role and name make a URI, and come out of it."""
        self.assertEqual(role_uri("dc", DC1), "ntm:dc:dc1.ntm.example")
        self.assertEqual(parse_role("ntm:dc:dc1.ntm.example"), ("dc", DC1))
        for uri in ("", "ntm:dc", "ntm:dc:", "ntm:xx:a", "https://dc1", "ntm:dc:a:b", "ntm:dc:A"):
            self.assertRaises(CertificateError, parse_role, uri)
        self.assertRaises(CertificateError, role_uri, "client", DC1)

    def test_of_certificates(self) -> None:
        """A server's certificate names one role; a device's none."""
        server = REALM.server("rs", "r1.dc1.ntm.example")[1][0]
        self.assertEqual(role_of(server), ("rs", "r1.dc1.ntm.example"))
        device = x509.load_der_x509_certificate(VALID.der)
        self.assertEqual(roles_of(device), [])
        self.assertRaises(CertificateError, role_of, device)

    def test_several(self) -> None:
        """A certificate with two roles has none that counts."""
        moment = datetime.fromtimestamp(NOW, UTC)
        uris = [x509.UniformResourceIdentifier(role_uri(role, DC1)) for role in ("dc", "rs")]
        both = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(REALM.root.certificate.subject)
            .public_key(KEY)
            .serial_number(1)
            .not_valid_before(moment)
            .not_valid_after(moment + timedelta(days=1))
            .add_extension(san(*uris), True)
            .sign(REALM.root.key, None)
        )
        self.assertEqual(len(roles_of(both)), 2)
        chain = [both.public_bytes(Encoding.DER)]
        for role in ("dc", "rs"):
            self.assertRaises(CertificateError, REALM.trust().verify_server, chain, role, DC1, NOW)

    def test_speaks_for(self) -> None:
        """R1: a DC or CS speaks only for devices of its own domain, and nobody else for any."""
        self.assertTrue(speaks_for("dc", DC1, PHONE))
        self.assertTrue(speaks_for("cs", "c1.dc1.ntm.example", PHONE))
        for role, name in (
            ("dc", "dc2.ntm.example"),
            ("dc", "ntm.example"),
            ("dc", "alice.dc1.ntm.example"),
            ("cs", "c1.dc2.ntm.example"),
            ("cs", DC1),
            ("rs", DC1),
            ("as", "ntm.example"),
        ):
            self.assertFalse(speaks_for(role, name, PHONE), f"{role}:{name}")
