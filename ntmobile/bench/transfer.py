"""``python -m ntmobile.bench.transfer JOB``: a plain HTTPS client that only moves bytes.

It sends requests that were made beforehand, one after the other on each connection, each with a
piece of one file, and keeps the bodies of the answers in memory that it has touched before. So what
is measured is the server, and every server is asked by the same code. What came is hashed after the
clock has stopped.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from ntmobile.bench.results import NothingTransferred

#: Bytes of a body that are given to TLS at once, and that are read at once.
PIECE: Final = 1 << 18
#: Seconds that one call of the connection may take, and bytes of the head of an answer.
_PATIENCE: Final = 60.0
_HEAD: Final = 16384


class Ask(msgspec.Struct, frozen=True):
    """A request.

    :ivar head: all of it before its body, the empty line included. :ivar status: of the answer
        that counts. :ivar begin: :ivar length: of its body in the file; or :ivar text: its body.
    :ivar keep: whether the body of the answer is content, which is kept and hashed.
    """

    head: str
    status: int
    begin: int = 0
    length: int = 0
    text: str = ""
    keep: bool = False


class Job(msgspec.Struct, frozen=True):
    """What to do.

    :ivar authority: file of the certificate that has signed the server's.
    :ivar lanes: what is asked on each connection, in order.
    :ivar first: :ivar last: on the first connection, before and after all that.
    :ivar source: file of the bodies.
    :ivar room: bytes of content that come on one connection.
    """

    host: str
    port: int
    authority: str
    lanes: Sequence[Sequence[Ask]]
    source: str = ""
    room: int = 0
    first: Sequence[Ask] = ()
    last: Sequence[Ask] = ()


class Done(msgspec.Struct, frozen=True):
    """What was done.

    :ivar seconds: from the first byte of the first request to the last one of the last answer; TLS
        stood before. :ivar cpu: seconds of this client's processor meanwhile.
    :ivar kept: bytes of content that came. :ivar digest: SHA-256 of them, in hexadecimal, one
        connection after the other. :ivar cipher: TLS version and cipher.
    :ivar last: the last answer of the first connection that was not content.
    """

    seconds: float
    cpu: float
    kept: int
    digest: str
    cipher: str
    last: str = ""


class Connection:
    """A TLS connection, and the answers that come on it.

    :ivar filled: bytes of content so far.
    """

    def __init__(self, job: Job) -> None:
        context = ssl.create_default_context(cafile=job.authority)
        # A realm's certificates name roles, not hosts; that the realm has signed it is enough here.
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["http/1.1"])
        plain = socket.create_connection((job.host, job.port), timeout=_PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context.wrap_socket(plain)
        self._memory = memoryview(bytearray(job.room + PIECE))
        self._memory[::4096] = bytes(len(self._memory[::4096]))
        self.filled = 0

    @property
    def content(self) -> memoryview:
        """The content that came."""
        return self._memory[: self.filled]

    @property
    def cipher(self) -> str:
        """TLS version and cipher."""
        name, version, _ = self.tls.cipher() or ("none", "none", 0)
        return f"{version} {name}"

    def send(self, ask: Ask, source: memoryview) -> None:
        """Send a request; a long body goes in pieces of its own."""
        self.tls.sendall(f"{ask.head}{ask.text}".encode())
        end = ask.begin + ask.length
        for begin in range(ask.begin, end, PIECE):
            self.tls.sendall(source[begin : min(begin + PIECE, end)])

    def receive(self, keep: bool) -> tuple[int, memoryview]:
        """Receive an answer; its status and body, which is overwritten unless it is kept.

        :raises NothingTransferred: it ends too early, or is too long.
        """
        begun = self.filled
        head = bytearray()
        while (found := head.find(b"\r\n\r\n")) < 0:
            head += self._read_some(_HEAD)
            if len(head) > _HEAD + PIECE:
                raise NothingTransferred("an answer whose head does not end")
        lines = head[:found].decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        length, first = int(fields.get("content-length", "0")), head[found + 4 :]
        if begun + length > len(self._memory) or len(first) > length:
            raise NothingTransferred(f"an answer of {length} bytes, more than there should be")
        self._memory[begun : begun + len(first)] = first
        at, end = begun + len(first), begun + length
        while at < end:
            count = self.tls.recv_into(self._memory[at : min(at + PIECE, end)])
            if not count:
                raise NothingTransferred("the server ended the connection within an answer")
            at += count
        if keep:
            self.filled = end
        return int(lines[0].split()[1]), self._memory[begun:end]

    def _read_some(self, size: int) -> bytes:
        data = self.tls.recv(size)
        if not data:
            raise NothingTransferred("the server ended the connection before its answer")
        return data


def ask_all(connection: Connection, asks: Sequence[Ask], source: memoryview) -> str:
    """Ask one after the other; the last answer that was not content.

    :raises NothingTransferred: an answer has another status than it should.
    """
    last = ""
    for ask in asks:
        connection.send(ask, source)
        status, body = connection.receive(ask.keep)
        if status != ask.status or not ask.keep:
            last = bytes(body).decode("utf-8", "replace")
        if status != ask.status:
            line = ask.head.partition("\r\n")[0]
            raise NothingTransferred(f"{line}: status {status}, not {ask.status}: {last[:200]}")
    return last


def run(job: Job) -> Done:
    """Do it.

    :raises NothingTransferred: an answer has another status than it should.
    """
    source = memoryview(Path(job.source).read_bytes() if job.source else b"")
    connections = [Connection(job) for _ in job.lanes]
    pairs = list(zip(connections, job.lanes, strict=True))
    with ThreadPoolExecutor(max(len(pairs) - 1, 1)) as threads:
        began, cpu = time.perf_counter(), time.process_time()
        ask_all(connections[0], job.first, source)
        others = [threads.submit(ask_all, *pair, source) for pair in pairs[1:]]
        last = ask_all(*pairs[0], source)
        for each in others:
            each.result()
        last = ask_all(connections[0], job.last, source) or last
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    digest, cipher = sha256(), connections[0].cipher
    for one in connections:
        digest.update(one.content)
        one.tls.close()
    kept = sum(one.filled for one in connections)
    return Done(seconds, used, kept, digest.hexdigest(), cipher, last)


def main() -> None:
    """Do the job in a file; what was done, or what went wrong, as JSON."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    try:
        sys.stdout.write(msgspec.json.encode(run(job)).decode())
    except (NothingTransferred, OSError, ValueError) as problem:
        sys.stdout.write(json.dumps({"failed": str(problem) or type(problem).__name__}))


if __name__ == "__main__":
    main()
