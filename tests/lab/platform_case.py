"""The base class of tests on the whole platform in the standing lab."""

from __future__ import annotations

from ntmobile.testbed.device import Device
from ntmobile.testbed.platform import Platform
from tests.lab.case import LabTestCase
from tests.lab.standing import standing_platform


class PlatformTestCase(LabTestCase):
    """A test that uses the standing platform; after it, all is as it was."""

    _platform: Platform | None = None

    async def platform(self) -> Platform:
        """Give the platform; what the test starts is ended after it, and who moved is at home."""
        if self._platform is not None:
            return self._platform
        self.addCleanup(self._restore)  # the last of the cleanups: programs are ended before
        await self.standing_lab()
        self._platform = await standing_platform()
        return self._platform

    async def end(self, one: Device, other: Device) -> None:
        """End the tunnel of two devices, and wait until neither has one."""
        one.ask("end", name=other.fqdn)

        async def ended() -> bool:
            return one.tunnel(other) is None and other.tunnel(one) is None

        await self.eventually(ended, timeout=5, what=f"no tunnel of {one.fqdn} and {other.fqdn}")

    async def _restore(self) -> None:
        if self._platform is None:
            return
        await self._platform.restore()
        for process in self._platform.lab.lab.processes:
            said = "".join(process.news().values())
            if process.standing and "Traceback" in said:
                self.fail(f"a fault in {process.name} on {process.host}:\n{said}")
