"""A cache server as a process, on a disk that becomes full."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import TestCase

from ntmobile.wire.messages.exchange import (
    DeliveryStatusResponse,
    EncryptedDataDownloadResponse,
    EncryptedDataUploadResponse,
)
from tests.cache_servers import CacheWorld
from tests.server_processes import PATIENCE, ServerProcess
from tests.web_clients import Answered

ALICE, BOB = "phone.alice.dc1.ntm.example", "laptop.bob.dc2.ntm.example"
#: Size of the disk, and of what is sent.
DISK, SIZE = 16 << 20, 5 << 20
OWN_DISK = ("unshare", "-Urm", "sh", "-ec", f'mount -t tmpfs -o size={DISK} tmpfs "$0"; exec "$@"')


class FullDiskTests(TestCase):
    """A small file system of its own, in a namespace."""

    timeout = 90

    def setUp(self) -> None:
        self.world = CacheWorld(Path(self.mktemp()).absolute())
        self.world.write("[storage]\nplugin = 'files'\nkeep_free = 0\n")
        self.state = self.world.directory / "state"
        self.state.mkdir()
        tried = subprocess.run(
            [*OWN_DISK, str(self.state), "true"], capture_output=True, check=False
        )
        if tried.returncode:
            self.skipTest(f"no namespace with a disk here: {tried.stderr.decode().strip()}")
        self.server = ServerProcess("ntm-cache", self.world.file, (*OWN_DISK, str(self.state)))
        self.addCleanup(self.server.stop)
        self.server.expect("is tried again")  # its coordinator is not there

    def within(self, command: str) -> str:
        """Run a command where the server's disk is."""
        pid = str(self.server.process.pid)
        words = ["nsenter", "-U", "-m", "--preserve-credentials", "-t", pid, "sh", "-c", command]
        done = subprocess.run(
            [*words, "sh", str(self.state)], capture_output=True, timeout=PATIENCE, check=False
        )
        return done.stdout.decode()

    def check_full(self, answer: Answered) -> None:
        """That is what a full storage says."""
        self.assertEqual(answer.status, 507, answer.body)
        self.assertEqual(answer.problem["type"], "urn:ntmobile:full")
        self.assertNotIn(str(self.world.directory), answer.problem["detail"])

    async def test_full(self) -> None:
        """What fits no more is refused, with nothing half visible; with room again it goes on."""
        alice, bob = await self.world.device(ALICE), await self.world.device(BOB)
        large, _ = alice.seal(bytes(2 * DISK), (BOB,))
        answer = await alice.web.ask("POST", "/v1/objects", alice.announcement(large, (BOB,)))
        self.check_full(answer)

        signed, parts = alice.seal(os.urandom(SIZE), (BOB,))
        answer = await alice.web.ask("POST", "/v1/objects", alice.announcement(signed, (BOB,)))
        path = f"/v1/objects/{answer.document(EncryptedDataUploadResponse).object.hex()}"
        octets = evolve(alice.web, headers={"content-type": "application/octet-stream"})
        self.within('dd if=/dev/zero of="$1/filler" bs=4k')
        self.check_full(await octets.ask("PUT", f"{path}/parts/0", parts[0]))
        self.assertEqual((await bob.web.ask("GET", path)).status, 404)
        self.assertEqual(self.within('find "$1/cache/parts" -type f'), "")
        answer = await alice.web.ask("GET", f"{path}/status")
        [status] = answer.document(DeliveryStatusResponse).statuses
        self.assertEqual(status.state, "not told")
        answer = await alice.web.ask("POST", f"{path}/complete")
        self.assertEqual((answer.status, answer.problem["type"]), (409, "urn:ntmobile:conflict"))

        self.within('rm "$1/filler"')
        for number, part in enumerate(parts):
            answer = await octets.ask("PUT", f"{path}/parts/{number}", part)
            self.assertEqual(answer.status, 204, answer.body)
        answer = await alice.web.ask("POST", f"{path}/complete")
        self.assertEqual(answer.document(EncryptedDataUploadResponse).missing, ())
        answer = await bob.web.ask("GET", path)
        self.assertEqual(answer.document(EncryptedDataDownloadResponse).manifest, signed)
        for number, part in enumerate(parts):
            self.assertEqual((await bob.web.ask("GET", f"{path}/parts/{number}")).body, part)
        self.assertNotIn("Traceback", self.server.stop())
