"""A MariaDB server for tests, in a directory of its own, of whatever account they run as."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: Debian: ``mariadb-server-core``.
SERVER = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
#: The scripts that make the tables of a new server: their names changed with version 11.
SCRIPTS = next(
    (
        [directory / f"{prefix}_system_tables{end}.sql" for end in ("", "_data")]
        for directory in (Path("/usr/share/mariadb"), Path("/usr/share/mysql"))
        for prefix in ("mariadb", "mysql")
        if (directory / f"{prefix}_system_tables.sql").exists()
    ),
    [],
)
MISSING = None if SERVER and SCRIPTS else "there is no MariaDB server (Debian: mariadb-server-core)"
#: What differs from a server's defaults: little is written before it is used.
_SMALL = (
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=16M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-temp-data-file-path=ibtmp1:1M:autoextend",
    "--log-warnings=0",
)
_BOUND = 60.0


class MariaDB:
    """A server that is made when it is first asked for, and ends with the process.

    :ivar socket: where it listens. :ivar certificate: by which it proves to be ``localhost``.
    """

    _one: MariaDB | None = None

    @classmethod
    def running(cls) -> MariaDB:
        """The one of this process, made and started where it is not."""
        if cls._one is None:
            cls._one = cls()
        cls._one.start()
        return cls._one

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="ntm-mariadb-"))  # short, for the socket
        atexit.register(shutil.rmtree, self._directory, ignore_errors=True)
        self.socket = self._directory / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.certificate, self._key = self._directory / "tls.pem", self._directory / "tls.key"
        make_certificate(self.certificate, self._key)
        (self._directory / "data").mkdir()
        lines = [
            "CREATE DATABASE mysql;",
            "USE mysql;",
            "SET @auth_root_socket = NULL;",
            *(script.read_text(encoding="utf-8") for script in SCRIPTS),
        ]
        done = subprocess.run(
            [*self._command(), "--bootstrap"],
            input="\n".join(lines).encode(),
            capture_output=True,
            timeout=_BOUND,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        atexit.register(self.stop)

    def _command(self) -> list[str]:
        assert SERVER is not None
        root = ["--user=root"] if os.geteuid() == 0 else []
        return [SERVER, "--no-defaults", f"--datadir={self._directory / 'data'}", *_SMALL, *root]

    def start(self) -> None:
        """Start it where it is not running, and wait until it answers."""
        if self._process is not None:
            return
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._command(),
                    f"--socket={self.socket}",
                    f"--pid-file={self._directory / 'pid'}",
                    "--skip-networking",
                    f"--ssl-ca={self.certificate}",
                    f"--ssl-cert={self.certificate}",
                    f"--ssl-key={self._key}",
                ],
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )
        deadline = time.monotonic() + _BOUND
        while True:
            try:
                self.ask("SELECT 1")
                return
            except pymysql.OperationalError:
                log_text = (self._directory / "log").read_text(errors="replace")[-2000:]
                assert self._process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, and wait for that."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_BOUND)
            self._process = None

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask something as root."""
        connection = pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def database(self, password: str) -> str:
        """Make an empty database, whose user has its name; gives it."""
        self._databases += 1
        name = f"cache{self._databases}"
        self.ask(f"CREATE DATABASE {name}")
        self.ask(f"CREATE USER {name}@localhost IDENTIFIED BY '{password}'")
        self.ask(f"GRANT ALL ON {name}.* TO {name}@localhost")
        return name

    def disconnect(self, user: str) -> int:
        """Cut all connections of a user; tells how many."""
        rows = self.ask(f"SELECT id FROM information_schema.processlist WHERE user = '{user}'")
        for (number,) in rows:
            self.ask(f"KILL CONNECTION {number}")
        return len(rows)


def make_certificate(file: Path, key_file: Path) -> None:
    """Make a certificate of ``localhost`` that nobody but itself has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.touch(0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _end_with_parent() -> None:
    """In the new process: be killed when the one that started it ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
