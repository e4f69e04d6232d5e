"""The lab and the platform that many tests of one process share; both end at exit."""

from __future__ import annotations

from twisted.trial.unittest import SkipTest

from ntmobile.lab.node import Lab
from ntmobile.lab.supervision import LabError, ProgramMissing
from ntmobile.protocols.timing import real_reactor
from ntmobile.testbed.platform import Platform
from ntmobile.testbed.standing import StandingLab

_lab: StandingLab | None = None
_platform: Platform | BaseException | None = None


async def standing_lab() -> StandingLab:
    """Give the standing lab of this process; it is made at the first call, and ends at exit."""
    global _lab
    if _lab is None:
        lab = Lab.start(real_reactor())
        try:
            _lab = await StandingLab.build(lab)
        except BaseException:
            lab.close()
            raise
    return _lab


async def standing_platform() -> Platform:
    """Give the platform of this process; it is made at the first call, in the standing lab."""
    global _platform
    if _platform is None:
        try:
            _platform = await Platform.build(await standing_lab())
        except BaseException as problem:
            _platform = problem
            if not isinstance(problem, ProgramMissing):
                raise
    if isinstance(_platform, ProgramMissing):
        raise SkipTest(str(_platform))
    if isinstance(_platform, BaseException):
        raise LabError("the platform could not be set up; see the first test that failed")
    return _platform
