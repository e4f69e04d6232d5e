"""Keys and certificates as files of a realm: made once, whole, and private (rule R6)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from ntmobile.plugins.files import sync_directory, write_file
from ntmobile.servers.authority import Signer, issue_server
from ntmobile.servers.credentials import key_to_pem, load_certificate, load_signer

#: A certificate in this last part of its life is renewed when its server is added again.
RENEWAL: Final = 1 / 3


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """A directory to fill, which then takes its name as a whole; gone if anything fails."""
    parent = directory.parent
    stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=parent))
    try:
        yield stage
        sync_directory(stage)
        os.rename(stage, directory)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    sync_directory(parent)


def write_signer(signer: Signer, stem: Path) -> None:
    """Write an authority's, or a server's, key and certificate; a key that is there is kept."""
    write_file(stem.with_suffix(".key"), key_to_pem(signer.key), replace=False)
    write_file(stem.with_suffix(".pem"), signer.certificate.public_bytes(Encoding.PEM), 0o644)


def write_server(root: Signer, role: str, name: str, stem: Path) -> None:
    """Make the key and certificate of a server."""
    key = Ed25519PrivateKey.generate()
    certificate = issue_server(root, role, name, key.public_key(), datetime.now(UTC))
    write_signer(Signer(certificate, key), stem)


def is_ending(stem: Path) -> bool:
    """Whether a server's certificate is here, and near its end (:data:`RENEWAL`)."""
    file = stem.with_suffix(".pem")
    if not file.exists():
        return False
    old = load_certificate(file)
    left = old.not_valid_after_utc - datetime.now(UTC)
    return left < (old.not_valid_after_utc - old.not_valid_before_utc) * RENEWAL


def renew_server(root: Signer, role: str, name: str, stem: Path) -> None:
    """Give a server a new certificate for the key that it has."""
    file = stem.with_suffix(".pem")
    key = load_signer(file, stem.with_suffix(".key")).key.public_key()
    new = issue_server(root, role, name, key, datetime.now(UTC))
    write_file(file, new.public_bytes(Encoding.PEM), 0o644)
