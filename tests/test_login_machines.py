"""The machines of a login: frames, proofs, what a client accepts, what a DC remembers."""

from __future__ import annotations

import contextlib

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.keys import PrivateKeys
from ntmobile.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationError,
    CertificateError,
    CertificateNotCurrent,
    ConfigurationError,
    MalformedMessage,
    QuotaExceeded,
    Unreachable,
)
from ntmobile.machines.login.attempts import DEVICE_BURST, FAILURE_BURST, Attempts
from ntmobile.machines.login.frames import FrameReader, frame
from ntmobile.machines.login.proofs import (
    DeviceKeys,
    accept_certificate,
    accept_trust,
    certificate_login,
    check_response,
    check_typed,
    enrolment,
    is_proven_enrolment,
    is_proven_login,
    refusal,
)
from ntmobile.machines.login.relaying import (
    CAPACITY,
    DOWNWARD,
    PATIENCE,
    UPWARD,
    Assigned,
    RelayedLogins,
)
from ntmobile.machines.login.sources import source_network
from ntmobile.servers.authority import issue_device_ca
from ntmobile.wire import virtual
from ntmobile.wire.certificates import Authority, DeviceCertificate
from ntmobile.wire.messages.account import (
    AssignmentRequest,
    LoginOutcome,
    LoginOutcomeCode,
    LoginRelay,
    LoginResponse,
    Trusted,
)
from tests.realms import MemoryRealm

DC1 = "dc1.ntm.example"
PHONE = f"phone.alice.{DC1}"


class FrameTests(SynchronousTestCase):
    """Frames of the inner session."""

    @given(st.lists(st.binary(min_size=1, max_size=200), max_size=8), st.integers(1, 64))
    def test_any_cut(self, payloads: list[bytes], cut: int) -> None:
        """Messages come out as they went in, however the records were cut."""
        messages = [LoginRelay(payload) for payload in payloads]
        data = b"".join(frame(message) for message in messages)
        reader, found = FrameReader(), []
        for at in range(0, len(data), cut):
            found += list(reader.feed(data[at : at + cut]))
        self.assertEqual(found, messages)

    def test_too_long(self) -> None:
        """A frame that is too long is refused by its length, before it is there."""
        reader = FrameReader(100)
        self.assertRaises(MalformedMessage, list, reader.feed(b"\0\0\0\x65"))

    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        """R11: whatever comes, the reader gives messages or one error."""
        with contextlib.suppress(MalformedMessage):
            list(FrameReader().feed(data))


class ProofTests(SynchronousTestCase):
    """R2, R3: what a device signs."""

    def setUp(self) -> None:
        self.keys = PrivateKeys.generate()
        self.public = self.keys.public()
        self.request = enrolment(
            self.keys.identity, self.public, ("alice", DC1), "phone", "secret", bytes(32)
        )

    def test_enrolment(self) -> None:
        """An enrolment proves its identity key."""
        self.assertTrue(is_proven_enrolment(self.request))

    def test_everything_is_signed(self) -> None:
        """R2: a change of binding, account, device or any key makes the proof void."""
        other = PrivateKeys.generate().public()
        for changed in (
            replace(self.request, binding=bytes(31) + b"\1"),
            replace(self.request, user="bob"),
            replace(self.request, domain="dc2.ntm.example"),
            replace(self.request, device="laptop"),
            replace(self.request, identity=other.identity),
            replace(self.request, x25519=other.x25519),
            replace(self.request, xwing=other.xwing),
        ):
            self.assertFalse(is_proven_enrolment(changed))

    def test_login(self) -> None:
        """R3: a certificate login is signed over its binding and name."""
        identity, _, certificate = MemoryRealm().device(PHONE)
        request = certificate_login(identity, certificate, bytes(32))
        self.assertTrue(is_proven_login(request, certificate))
        self.assertFalse(is_proven_login(replace(request, binding=b"\1" * 32), certificate))
        other = evolve(certificate, fqdn=f"laptop.alice.{DC1}")
        self.assertFalse(is_proven_login(request, other))

    def test_no_secret_in_repr(self) -> None:
        """R6: what may get into a log shows neither password nor keys."""
        shown = repr(self.request) + repr(self.keys) + repr(self.public)
        self.assertNotIn("secret", shown)
        self.assertNotIn(repr(self.keys.xwing_seed), shown)

    def test_password(self) -> None:
        """A password that cannot be sent is told before anybody is asked."""
        self.assertRaises(AuthenticationError, check_typed, "x" * 1025)
        self.assertRaises(AuthenticationError, check_typed, "\udcff")
        self.assertEqual(check_typed("grüße"), "grüße")


class AnswerTests(SynchronousTestCase):
    """R1, R4, R12: what a client accepts as the answer to its login."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()
        _, _, self.certificate = self.realm.device(PHONE)
        self.keys = _Keys(self.certificate)
        self.response = self.answer()

    def answer(self, **more: object) -> LoginResponse:
        response = LoginResponse(
            LoginOutcomeCode.OK, int(self.realm.now * 1000), certificate=self.certificate.der
        )
        return replace(response, **more)

    def accept(self, response: LoginResponse) -> DeviceCertificate:
        return accept_certificate(response, PHONE, self.keys, self.realm.trust())

    def test_own(self) -> None:
        """The certificate for one's own name and keys is accepted."""
        self.assertEqual(self.accept(self.response), self.certificate)

    def test_other_keys(self) -> None:
        """R2: a certificate for other keys, or another name, is refused."""
        _, _, other = self.realm.device(PHONE)
        self.assertRaises(CertificateError, self.accept, self.answer(certificate=other.der))
        _, _, other = self.realm.device(f"laptop.alice.{DC1}")
        self.assertRaises(CertificateError, self.accept, self.answer(certificate=other.der))

    def test_other_authority(self) -> None:
        """R1: nor one that another authority signed."""
        stranger = MemoryRealm().certify(self.certificate)
        self.assertRaises(CertificateError, self.accept, self.answer(certificate=stranger.der))

    def test_time(self) -> None:
        """R12: validity is judged by the AS's time."""
        late = self.answer(time=int((self.realm.now + 2 * 86400) * 1000))
        self.assertRaises(CertificateNotCurrent, self.accept, late)

    def test_new_device_authority(self) -> None:
        """A new device-CA that the known root signed is learnt."""
        root, old = self.realm.root, self.realm.device_ca.certificate
        new = issue_device_ca(root, self.realm.domain, old.not_valid_before_utc).certificate
        domain = self.realm.domain
        bundle = Authority(domain, domain, root.certificate, (old, new)).to_pem()
        trust = accept_trust(self.answer(bundle=bundle), self.realm.trust())
        self.assertEqual(trust.authorities[domain].device_cas, (old, new))

    def test_new_root(self) -> None:
        """R1: an AS cannot replace the root that the user was given."""
        bundle = MemoryRealm().authority.to_pem()
        response = self.answer(bundle=bundle)
        problem = self.assertRaises(CertificateError, accept_trust, response, self.realm.trust())
        self.assertIn("another root", str(problem))

    def test_foreign(self) -> None:
        """R1: foreign authorities are learnt for their suffix, and forgotten when not told."""
        other = MemoryRealm("else.example")
        told = Trusted("else.example", other.authority.to_pem())
        trust = accept_trust(self.answer(trusted=(told,)), self.realm.trust())
        self.assertTrue(trust.trusts("dc.else.example"))
        self.assertFalse(accept_trust(self.answer(), trust).trusts("dc.else.example"))

    def test_foreign_within_the_realm(self) -> None:
        """R1: a foreign authority decides nothing within the own realm."""
        told = Trusted(DC1, MemoryRealm(DC1).authority.to_pem())
        response = self.answer(trusted=(told,))
        self.assertRaises(CertificateError, accept_trust, response, self.realm.trust())

    def test_outcomes(self) -> None:
        """Each outcome is the error that fits, with the AS's own line, made printable."""
        for outcome, kind in (
            (LoginOutcomeCode.DENIED, AuthenticationError),
            (LoginOutcomeCode.EXISTS, AlreadyExists),
            (LoginOutcomeCode.LIMITED, QuotaExceeded),
            (LoginOutcomeCode.REFUSED, AccessDenied),
            (LoginOutcomeCode.UNAVAILABLE, Unreachable),
            (200, AccessDenied),
        ):
            response = self.answer(outcome=outcome, detail="why\x1b[2J")
            problem = self.assertRaises(kind, check_response, response)
            self.assertEqual(str(problem), "why?[2J")
            self.assertTrue(str(refusal(outcome, "")))

    def test_other_message(self) -> None:
        """R11: any other message is an error."""
        self.assertRaises(MalformedMessage, check_response, LoginRelay(b"x"))


class _Keys(DeviceKeys):
    """The keys of a certificate whose X-Wing key nobody has."""

    _hash: bytes

    def __init__(self, certificate: DeviceCertificate) -> None:
        super().__init__(certificate.identity, certificate.x25519, b"")
        object.__setattr__(self, "_hash", certificate.xwing_hash)

    @property
    def xwing_hash(self) -> bytes:
        return self._hash


class RelayTests(SynchronousTestCase):
    """R2: what a DC remembers and checks."""

    def setUp(self) -> None:
        self.realm = MemoryRealm()
        self.logins = RelayedLogins(DC1)
        self.binding = bytes(range(32))
        self.login = self.logins.begin("link", "203.0.113.5", self.binding, 100.0)
        _, _, self.certificate = self.realm.device(PHONE)

    def assign(self, user: str, device: str) -> Assigned:
        fqdn = f"{device}.{user}.{DC1}"
        ipv4 = virtual.pick_ipv4(virtual.POOL, fqdn, ())
        return fqdn, virtual.address_of(DC1, fqdn), ipv4

    def ask(self, binding: bytes | None = None, number: int | None = None) -> int:
        request = AssignmentRequest(
            self.login.number if number is None else number,
            "alice",
            "phone",
            self.binding if binding is None else binding,
        )
        return self.logins.assignment(request, self.assign).outcome

    def outcome(self, certificate: DeviceCertificate, fqdn: str = PHONE) -> object:
        message = LoginOutcome(self.login.number, fqdn, certificate.der, 86400)
        return self.logins.outcome(message, self.realm.trust(), self.realm.now)

    def test_binding(self) -> None:
        """R2: only the binding of that very connection gets an assignment."""
        self.assertEqual(self.ask(bytes(32)), LoginOutcomeCode.REFUSED)
        self.assertIsNone(self.login.assigned)
        self.assertEqual(self.ask(number=77), LoginOutcomeCode.REFUSED)
        self.assertEqual(self.ask(), LoginOutcomeCode.OK)

    def test_outcome(self) -> None:
        """R2: the DC learns the certificate, and the lifetime is never beyond it."""
        self.ask()
        self.assertIs(self.outcome(self.certificate), self.login)
        self.assertEqual(self.login.certificate, self.certificate)
        self.assertLessEqual(self.login.lifetime, 86400)

    def test_outcome_without_assignment(self) -> None:
        """An AS cannot admit a device that was not assigned."""
        self.assertRaises(CertificateError, self.outcome, self.certificate)

    def test_outcome_of_another_device(self) -> None:
        """R1: nor another one, nor one of another domain, nor one of another realm."""
        self.ask()
        _, _, laptop = self.realm.device(f"laptop.alice.{DC1}")
        self.assertRaises(CertificateError, self.outcome, laptop, laptop.fqdn)
        self.assertRaises(CertificateError, self.outcome, laptop)
        _, _, abroad = self.realm.device("phone.alice.dc2.ntm.example")
        self.assertRaises(CertificateError, self.outcome, abroad, abroad.fqdn)
        stranger = MemoryRealm().certify(self.certificate)
        self.assertRaises(CertificateError, self.outcome, stranger)
        self.assertIsNone(self.login.certificate)

    def test_outcome_too_late(self) -> None:
        """An outcome for a device that is gone is no error of the link."""
        self.ask()
        self.logins.end(self.login)
        self.assertIsNone(self.outcome(self.certificate))

    def test_bounds(self) -> None:
        """A login carries a bounded number of bytes each way."""
        self.logins.upward(self.login, bytes(UPWARD))
        self.assertRaises(AuthenticationError, self.logins.upward, self.login, b"x")
        self.logins.downward(self.login, bytes(DOWNWARD))
        self.assertRaises(AuthenticationError, self.logins.downward, self.login, b"x")

    def test_source(self) -> None:
        """R2: the AS hears the source with the first records."""
        first = self.logins.upward(self.login, b"x")
        self.assertEqual((first.source, first.login), ("203.0.113.5", self.login.number))
        self.assertEqual(self.logins.upward(self.login, b"x").source, "")

    def test_capacity(self) -> None:
        """A DC relays a bounded number of logins."""
        for number in range(CAPACITY - 1):
            self.logins.begin(number, "", self.binding, 100.0)
        self.assertRaises(QuotaExceeded, self.logins.begin, "more", "", self.binding, 100.0)

    def test_expiry(self) -> None:
        """A login's time is over after a minute, the oldest one first."""
        second = self.logins.begin("other", "", self.binding, 110.0)
        self.assertEqual(self.logins.next_timer(), 100.0 + PATIENCE)
        self.assertEqual(self.logins.expired(100.0 + PATIENCE), [self.login])
        self.logins.end(self.login)
        self.assertEqual(self.logins.next_timer(), 110.0 + PATIENCE)
        self.logins.end(second)
        self.assertIsNone(self.logins.next_timer())

    def test_numbers(self) -> None:
        """Numbers are never used twice, so late records belong to nobody."""
        self.logins.end(self.login)
        again = self.logins.begin("link", "", self.binding, 101.0)
        self.assertGreater(again.number, self.login.number)
        self.assertIs(self.logins.of_client("link"), again)
        self.assertIsNone(self.logins.of_number(self.login.number))


class AttemptTests(SynchronousTestCase):
    """R2: limits."""

    def test_devices(self) -> None:
        """A device that logs in again and again is slowed down; another one is not."""
        attempts = Attempts()
        for _ in range(DEVICE_BURST):
            attempts.certificate(PHONE, 0.0)
        problem = self.assertRaises(QuotaExceeded, attempts.certificate, PHONE, 0.0)
        self.assertIn("try again in", str(problem))
        attempts.certificate("laptop.alice.dc1.ntm.example", 0.0)

    def test_failures(self) -> None:
        """Wrong proofs from one network are limited."""
        attempts = Attempts()
        for number in range(FAILURE_BURST):
            attempts.certificate_wrong(f"2001:db8::{number:x}", 0.0)
        self.assertRaises(QuotaExceeded, attempts.certificate_wrong, "2001:db8::ffff", 0.0)
        attempts.certificate_wrong("2001:db8:0:1::1", 0.0)

    def test_stranger_cannot_lock_out(self) -> None:
        """One network cannot use up the attempts of a user from elsewhere."""
        attempts = Attempts()
        for second in range(600):
            with contextlib.suppress(QuotaExceeded):
                attempts.password("alice", "203.0.113.66", float(second))
        attempts.password("alice", "203.0.113.5", 600.0)

    def test_networks(self) -> None:
        """What counts as one source: an IPv4 address, an IPv6 /64."""
        self.assertEqual(source_network("203.0.113.5"), "203.0.113.5")
        self.assertEqual(source_network("::ffff:203.0.113.5"), "203.0.113.5")
        self.assertEqual(source_network("2001:db8::1"), "2001:db8::/64")
        self.assertEqual(source_network("2001:db8::2"), "2001:db8::/64")
        self.assertEqual(source_network(""), "")


class KeyTests(SynchronousTestCase):
    """R4: a device's keys and their file."""

    def test_file(self) -> None:
        """Keys come back from a file as they were."""
        keys = PrivateKeys.generate()
        again = PrivateKeys.from_pem(keys.to_pem(), "device.pem")
        self.assertEqual(again.public(), keys.public())
        self.assertEqual(again.xwing_seed, keys.xwing_seed)

    def test_damaged(self) -> None:
        """A damaged or cut file is one line that names it."""
        data = PrivateKeys.generate().to_pem()
        for at in range(0, len(data), 37):
            damaged = data[:at] + b"!" + data[at + 1 :]
            try:
                PrivateKeys.from_pem(damaged[: at + 50], "device.pem")
            except ConfigurationError as problem:
                self.assertIn("device.pem: damaged", str(problem))

    def test_xwing_vector(self) -> None:
        """The X-Wing key is expanded as the draft says: its first test vector's public key."""
        seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
        keys = PrivateKeys(Ed25519PrivateKey.generate(), PrivateKeys.generate().x25519, seed)
        public = keys.public().xwing
        self.assertEqual(len(public), 1216)
        self.assertEqual(public[:16].hex(), "e2236b35a8c24b39b10aa1323a96a919")
        x25519 = "859edb06eff389b27dce59844570216223593d4ba32d9abac8cd049040ef6534"
        self.assertEqual(public[1184:].hex(), x25519)
