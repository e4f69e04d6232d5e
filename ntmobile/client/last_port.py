"""The UDP port of a device's last agent, which its next one takes again.

Correspondents, DC and relay then find it where it was, and the NAT on the way keeps its mapping.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from ntmobile.plugins.files import write_file

log = Logger()


def load_port(file: Path) -> int:
    """The port that an earlier agent had; 0 where there was none, or the file is damaged."""
    with suppress(OSError, ValueError):
        port = int(file.read_bytes()[:16])
        if 1024 <= port <= 65535:
            return port
    return 0


def save_port(file: Path, port: int) -> None:
    """Keep it. Where that fails, the next agent takes another port."""
    if load_port(file) == port:
        return
    try:
        write_file(file, f"{port}\n".encode())
    except OSError as problem:
        log.error("{file} cannot be written: {problem}", file=str(file), problem=problem.strerror)
