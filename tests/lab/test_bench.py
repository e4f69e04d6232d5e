"""A benchmark's smallest measurement in the lab: a real relay, directed, bound and counted."""

from __future__ import annotations

from ntmobile.bench.relay import MODES, Grounds, lossless
from ntmobile.bench.results import OWN
from tests.lab.case import LabTestCase


class RelayBenchmarkTests(LabTestCase):
    """The part that measures relays, a fraction of a second each."""

    async def test_relay(self) -> None:
        """Each way of sending gets datagrams through a relay server, and they are counted."""
        grounds = await Grounds.build(self.new_lab())
        for mode in MODES:
            (found,) = await grounds.generate(OWN, mode, mode.windows[:1], 0.2)
            self.assertTrue(lossless(found), (mode.title, found))
            self.assertGreater(found["rate"], 1000, (mode.title, found))
