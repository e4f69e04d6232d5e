"""The device's identity: its keys, its certificate and whom it trusts, in its state directory.

What a login changes is written at once and as a whole; the keys stand in one file with the
certificate that is theirs, so that no crash can part them.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve, field, frozen

from ntmobile.client.keys import PrivateKeys, certificate_from_pem, certificate_to_pem
from ntmobile.client.state import AUTHORITY, DEVICE, EXCHANGE, OUTBOX, PENDING, TRUST
from ntmobile.errors import (
    CertificateError,
    ConfigurationError,
    InvalidName,
    NotRegistered,
    StorageFailed,
)
from ntmobile.machines.login.proofs import DeviceKeys
from ntmobile.plugins.files import make_directory, read_file, read_secret, write_file
from ntmobile.wire import names
from ntmobile.wire.certificates import Authority, DeviceCertificate, TrustStore


@frozen
class DeviceIdentity:
    """An enrolled device.

    :ivar directory: its state directory. :ivar keys: private.
    :ivar certificate: its latest certificate. :ivar trust: its realm's authority, and foreign ones.
    """

    directory: Path
    keys: PrivateKeys = field(repr=False)
    certificate: DeviceCertificate
    trust: TrustStore = field(repr=False)

    @classmethod
    def load(cls, directory: Path) -> DeviceIdentity:
        """Read a state directory.

        :raises NotRegistered: no device is enrolled there.
        :raises ConfigurationError: a file is damaged, or readable by everybody.
        """
        path = directory / DEVICE
        if not path.exists():
            raise NotRegistered(f"{directory}: no device is enrolled here; see ntm enroll")
        data = read_secret(path)
        keys = PrivateKeys.from_pem(data, path)
        try:
            certificate = certificate_from_pem(data, path)
            trust = read_trust(directory)
            trust.verify_device(certificate, None)
        except CertificateError as problem:
            raise ConfigurationError(f"{path}: {problem}; enrol again with --replace") from None
        if not is_for(certificate, keys.public()):
            raise ConfigurationError(f"{path}: damaged; enrol this device again with --replace")
        return cls(directory, keys, certificate, trust)

    @property
    def fqdn(self) -> str:
        """The device's name."""
        return self.certificate.fqdn

    @property
    def domain(self) -> str:
        """Of its coordinator."""
        return names.domain_of(self.fqdn)

    def sign(self, statement: bytes) -> bytes:
        """Sign with the identity key."""
        return self.keys.identity.sign(statement)

    def save(self) -> None:
        """Write it; the last step of an enrolment.

        :raises StorageFailed: it cannot be written; what was there still is.
        """
        try:
            make_directory(self.directory)
            self.directory.chmod(0o700)
            write_trust(self.directory, self.trust)
            write_file(self.directory / DEVICE, self._to_pem())
            (self.directory / PENDING).unlink(missing_ok=True)
        except OSError as problem:
            raise unwritable(self.directory, problem) from None

    def renewed(self, certificate: DeviceCertificate, trust: TrustStore) -> DeviceIdentity:
        """The same device after a login, written to its directory.

        :raises NotRegistered: the device logged out or was enrolled anew meanwhile.
        :raises StorageFailed: it cannot be written; the former certificate is still there.
        """
        path = self.directory / DEVICE
        try:
            on_disk = PrivateKeys.from_pem(read_secret(path), path).identity
        except ConfigurationError:
            raise NotRegistered(f"{self.directory}: the device logged out meanwhile") from None
        if on_disk.private_bytes_raw() != self.keys.identity.private_bytes_raw():
            raise NotRegistered(f"{self.directory}: the device was enrolled anew meanwhile")
        new = evolve(self, certificate=certificate, trust=trust)
        try:
            if trust != self.trust:
                write_trust(self.directory, trust)
            write_file(path, new._to_pem())
        except OSError as problem:
            raise unwritable(self.directory, problem) from None
        return new

    def _to_pem(self) -> bytes:
        return certificate_to_pem(self.certificate) + self.keys.to_pem()


def is_for(certificate: DeviceCertificate, keys: DeviceKeys) -> bool:
    """Whether a certificate is for these keys."""
    return (certificate.identity, certificate.x25519, certificate.xwing_hash) == (
        keys.identity,
        keys.x25519,
        keys.xwing_hash,
    )


def erase(directory: Path) -> None:
    """Remove the secrets of a device that logged out; settings, pins and what came stay."""
    try:
        for name in (DEVICE, PENDING, EXCHANGE, f"{EXCHANGE}-wal", f"{EXCHANGE}-shm"):
            (directory / name).unlink(missing_ok=True)
        for path in (directory / OUTBOX).glob("*"):
            path.unlink(missing_ok=True)
    except OSError as problem:
        raise unwritable(directory, problem) from None


# -- keys of an enrolment under way


def pending_keys(directory: Path, account: str) -> PrivateKeys:
    """The keys for an enrolment: new ones, or those of an attempt whose end is not known.

    So a device that was recorded at the AS but never heard of it is recognized when it tries again.

    :param account: the FQDN; keys of an attempt for another one are not used.
    :raises StorageFailed: they cannot be written.
    """
    path = directory / PENDING
    mark = b"# " + account.encode() + b"\n"
    try:
        if path.exists():
            data = read_secret(path)
            if data.startswith(mark):
                return PrivateKeys.from_pem(data, path)
    except ConfigurationError:
        pass  # damaged, and nobody needs it: it is written anew
    keys = PrivateKeys.generate()
    try:
        make_directory(directory)
        write_file(path, mark + keys.to_pem())
    except OSError as problem:
        raise unwritable(directory, problem) from None
    return keys


def forget_pending(directory: Path) -> None:
    """The enrolment ended: remove its keys, and the directory if nothing else is in it."""
    try:
        (directory / PENDING).unlink(missing_ok=True)
        directory.rmdir()
    except OSError:
        pass  # there is something else in it


# -- trust


def home_authority(pem: bytes, domain: str, where: object) -> TrustStore:
    """The trust that a user gives with ``--trust``: the realm's authority, for all of the realm.

    :raises ConfigurationError: no bundle, or of another realm than the domain's.
    """
    try:
        found = Authority.from_pem("unknown.invalid", pem)
        authority = Authority.from_pem(found.realm, pem)
    except (CertificateError, InvalidName) as problem:
        raise ConfigurationError(f"{where}: {problem}") from None
    if not names.is_within(domain, authority.realm):
        raise ConfigurationError(
            f"{where}: the authority of {authority.realm}, which {domain} is not within"
        )
    return TrustStore.of(authority)


def read_trust(directory: Path) -> TrustStore:
    """The authorities in a state directory; :class:`ConfigurationError` if one is damaged."""
    path = directory / AUTHORITY
    try:
        pem = read_file(path)
        realm = Authority.from_pem("unknown.invalid", pem).realm
        home = Authority.from_pem(realm, pem)
        foreign = []
        for path in sorted((directory / TRUST).glob("*.pem")):
            foreign.append(Authority.from_pem(path.stem, read_file(path)))
    except (CertificateError, InvalidName) as problem:
        raise ConfigurationError(f"{path}: {problem}") from None
    return TrustStore.of(home, *foreign)


def write_trust(directory: Path, trust: TrustStore) -> None:
    """Write the authorities; those no longer trusted are removed."""
    home = trust.authorities[trust.home]
    write_file(directory / AUTHORITY, home.to_pem())
    foreign = {f"{each}.pem": trust.authorities[each] for each in trust.authorities}
    del foreign[f"{trust.home}.pem"]
    if foreign:
        make_directory(directory / TRUST)
    for name, authority in foreign.items():
        write_file(directory / TRUST / name, authority.to_pem())
    for path in (directory / TRUST).glob("*.pem"):
        if path.name not in foreign:
            path.unlink()


def unwritable(directory: Path, problem: OSError) -> StorageFailed:
    """The error for a directory that cannot be written."""
    reason = problem.strerror or type(problem).__name__
    return StorageFailed(f"{directory}: cannot be written: {reason}")
