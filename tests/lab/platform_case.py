"""The base class of tests on the whole platform in the standing lab."""

from __future__ import annotations

from tests.lab.case import LabTestCase
from tests.lab.platform import Platform, standing_platform


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

    async def _restore(self) -> None:
        if self._platform is not None:
            await self._platform.restore()
