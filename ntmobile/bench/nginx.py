"""The peer of the cache server: nginx of Debian, which takes files by WebDAV over TLS."""

from __future__ import annotations

import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Final

from attrs import define, field

from ntmobile.bench.load_realm import HOST, free_ports, processor_seconds
from ntmobile.bench.programs import debian
from ntmobile.errors import Unreachable
from ntmobile.lab import kernel

NGINX: Final = "nginx"
PACKAGE: Final = "nginx"
_PATIENCE: Final = 15.0

#: Defaults but for: one process, which serves one connection as one worker would; TLS 1.3 alone;
#: no limit of a body, nor of the requests of one connection; files where the benchmark has its own.
_CONFIGURATION: Final = """\
daemon off;
master_process off;
pid {place}/pid;
error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    types {{ }}
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path {place}/temporary;
    proxy_temp_path {place}/none;
    fastcgi_temp_path {place}/none;
    uwsgi_temp_path {place}/none;
    scgi_temp_path {place}/none;
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        root {place}/files;
        dav_methods PUT DELETE;
    }}
}}
"""


@define(eq=False)
class Nginx:
    """A running nginx.

    :ivar place: an empty directory. :ivar certificate: :ivar key: what it shows.
    """

    place: Path
    certificate: Path
    key: Path
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it. :raises Skipped: it is not installed. :raises Unreachable: it does not run."""
        program = debian(NGINX, PACKAGE)
        (self.port,) = free_ports(1)
        for name in ("files", "temporary"):
            (self.place / name).mkdir(parents=True)
        file = self.place / "nginx.conf"
        text = _CONFIGURATION.format(
            place=self.place,
            host=HOST,
            port=self.port,
            certificate=self.certificate,
            key=self.key,
        )
        file.write_text(text, encoding="utf-8")
        log = self.place / "error.log"
        argv = [str(program), "-p", str(self.place), "-e", str(log), "-c", str(file)]
        with (self.place / "said").open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(kernel.die_with_parent, signal.SIGKILL),
            )
        end = time.monotonic() + _PATIENCE
        while not (self.place / "pid").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise Unreachable(f"nginx does not run: {self._said()}")
            time.sleep(0.02)

    def _said(self) -> str:
        text = "".join(
            (self.place / name).read_text("utf-8", "replace")
            for name in ("said", "error.log")
            if (self.place / name).exists()
        )
        return text.strip().rpartition("\n")[2] or "it said nothing"

    def stored(self, name: str) -> Path:
        """The file that was put under a name."""
        return self.place / "files" / name

    def cpu(self) -> float:
        """Seconds of the processor so far."""
        return (
            0.0 if self._process is None else processor_seconds(f"/proc/{self._process.pid}/stat")
        )

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
