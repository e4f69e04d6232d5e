"""Logging in through a DC, as the device sees it (rules R2, R3, R5)."""

from __future__ import annotations

from ntmobile.client.identity import DeviceIdentity
from tests.login_cases import DC1, LoginTestCase


class EnrolmentTests(LoginTestCase):
    """The first login of a device."""

    def test_enrol(self) -> None:
        """R3, R4: a device gets a certificate for its keys, and its directory can be loaded."""
        enrolled = self.enroll()
        identity = DeviceIdentity.load(self.root / "phone")
        self.assertEqual(identity.fqdn, f"phone.alice.{DC1}")
        self.assertEqual(identity.certificate, enrolled.identity.certificate)
        self.assertEqual(enrolled.warning, "")

    def test_log_in(self) -> None:
        """R3: a device logs in with its certificate, which is renewed."""
        identity = self.enroll().identity
        result = self.log_in(identity)
        self.assertNotEqual(result.certificate.serial, identity.certificate.serial)
        certificate, key, lifetime = self.dc.admitted[-1]
        self.assertEqual(certificate, result.certificate)
        self.assertEqual(key, result.session_key)
        self.assertTrue(86390 < lifetime <= 86400, lifetime)
