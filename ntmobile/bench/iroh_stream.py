"""``python -m ntmobile.bench.iroh_stream``: one stream of iroh, counted where it arrives.

No relay and no discovery: the sender is given the receiver's identity and address. iroh's Python
package brings its own threads and needs an event loop of the standard library; Twisted's reactor
on such a loop has one. Its binding copies what is written byte by byte in a loop of Python, which
alone would keep it below 100 Mbit/s; that copy is done in one call here, so that iroh is measured.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Coroutine
from importlib import import_module
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

_ALPN = b"ntmobile-bench"
_CHUNK = 1 << 20


def say(value: object) -> None:
    """Write a line for who waits for it."""
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


def hasten(iroh_ffi: Any) -> None:
    """Have the binding copy bytes in one call, if it is as it was."""
    builder = getattr(iroh_ffi, "_UniffiRustBufferBuilder", None)
    if builder is None or not hasattr(builder, "_reserve"):
        return

    def write(self: Any, value: bytes) -> None:
        with self._reserve(len(value)):
            start = ctypes.cast(self.rbuf.data, ctypes.c_void_p).value or 0
            ctypes.memmove(start + self.rbuf.len, bytes(value), len(value))

    builder.write = write


async def endpoint(iroh: Any, address: str) -> Any:
    """An endpoint at an address that only uses direct paths."""
    return await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            bind_addr=address,
            alpns=[_ALPN],
            relay_mode=iroh.RelayMode.disabled(),
        )
    )


async def receive(iroh: Any, address: str) -> None:
    """Take streams for ever; print the bytes and seconds of each."""
    own = await endpoint(iroh, address)
    say(f"identity {own.id()}")
    while True:
        incoming = await own.accept_next()
        connection = await (await incoming.accept()).connect()
        stream = await connection.accept_uni()
        total, began, ended = 0, 0.0, 0.0
        while data := await stream.read(_CHUNK):
            ended = time.monotonic()
            began = began or ended
            total += len(data)
        say(json.dumps({"bytes": total, "seconds": ended - began}))


async def send(iroh: Any, address: str, identity: str, peer: str, seconds: float) -> None:
    """Send for some seconds."""
    own = await endpoint(iroh, address)
    to = iroh.EndpointAddr(iroh.EndpointId.from_string(identity), None, [peer])
    connection = await own.connect(to, _ALPN)
    stream = await connection.open_uni()
    chunk = bytes(_CHUNK)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await stream.write_all(chunk)
    await stream.finish()
    await stream.stopped()
    connection.close(0, b"done")
    await own.close()


def main() -> None:
    """Receive at an address, or send from one to an identity at another for some seconds."""
    iroh: Any = import_module("iroh")  # a peer that need not be there
    hasten(iroh.iroh_ffi)
    end, *rest = sys.argv[1:]
    work: Coroutine[Any, Any, None]
    if end == "receive":
        work = receive(iroh, *rest)
    else:
        address, identity, peer, seconds = rest
        work = send(iroh, address, identity, peer, float(seconds))
    reactor = asyncioreactor.AsyncioSelectorReactor()
    loop: Any = reactor._asyncioEventloop
    if hasattr(iroh.iroh_ffi, "uniffi_set_event_loop"):
        iroh.iroh_ffi.uniffi_set_event_loop(loop)
    react(lambda _: Deferred.fromFuture(loop.create_task(work)), (), reactor)


if __name__ == "__main__":
    main()
