"""What a benchmark gives: medians, ratios, bars, and rows of what failed or was not there."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from ntmobile.bench.results import (
    OWN,
    Bar,
    NothingTransferred,
    Row,
    Section,
    Skipped,
    Table,
    in_turn,
    load,
    save,
)


def table(own: list[float], peer: list[float], *, more: bool = True, **bar: float) -> Table:
    """Two contenders and a bar."""
    rows = [Row(OWN, own), Row("peer", peer)]
    return Table("t", "u", more=more, rows=rows, bars=[Bar(OWN, "peer", **bar)])


class TableTests(SynchronousTestCase):
    """Rows, ratios and verdicts."""

    def test_median_and_spread(self) -> None:
        """A row tells the median and the ends of its samples."""
        row = Row("x", [5.0, 1.0, 2.0, 9.0, 3.0])
        self.assertEqual((3.0, (1.0, 9.0)), (row.median, row.spread))

    def test_no_samples(self) -> None:
        """A row without samples has neither."""
        self.assertEqual((None, None), (Row("x").median, Row("x").spread))

    def test_ratio_of_rates(self) -> None:
        """Where more is better, a greater median is so many times better."""
        self.assertEqual(3.0, table([6.0], [2.0]).ratio(OWN, "peer"))

    def test_ratio_of_times(self) -> None:
        """Where less is better, a smaller median is."""
        self.assertEqual(3.0, table([2.0], [6.0], more=False).ratio(OWN, "peer"))

    def test_bar_met(self) -> None:
        """A multiple of a peer is reached at exactly that."""
        (verdict,) = table([6.0], [2.0], least=3.0).verdicts()
        self.assertEqual((3.0, True), (verdict.value, verdict.met))

    def test_bar_not_met(self) -> None:
        """A multiple that is not reached is not met."""
        (verdict,) = table([5.9], [2.0], least=3.0).verdicts()
        self.assertIs(False, verdict.met)

    def test_bar_without_peer_row(self) -> None:
        """A peer that was skipped leaves the bar unjudged."""
        (verdict,) = table([6.0], [], least=3.0).verdicts()
        self.assertEqual((None, None), (verdict.value, verdict.met))

    def test_bar_of_a_number(self) -> None:
        """A bar without a peer judges the median itself."""
        judged = Table("t", "ms", more=False, rows=[Row("x", [30.0, 10.0, 20.0])])
        judged.bars = [Bar("x", most=20.0), Bar("x", most=19.0)]
        self.assertEqual([True, False], [verdict.met for verdict in judged.verdicts()])

    def test_bar_of_a_failure(self) -> None:
        """A row that failed meets nothing, whatever it measured before."""
        failed = table([6.0], [2.0], least=3.0)
        failed.rows[0].failed = "it broke"
        self.assertIs(False, failed.verdicts()[0].met)


class InTurnTests(TestCase):
    """Contenders are measured A B A B."""

    async def test_order(self) -> None:
        """Each is measured once before any is measured again."""
        order: list[str] = []

        async def measure(name: str) -> float:
            order.append(name)
            return float(len(order))

        contenders = {name: lambda name=name: measure(name) for name in "ab"}
        rows = await in_turn(2, contenders, "u", lambda line: None)
        self.assertEqual("abab", "".join(order))
        self.assertEqual([1.0, 3.0], rows["a"].samples)

    async def test_failure(self) -> None:
        """Who fails is left out from then on; the row keeps why, and the others go on."""
        calls = 0

        async def broken() -> float:
            nonlocal calls
            calls += 1
            raise NothingTransferred("0 bytes arrived")

        async def well() -> float:
            return 1.0

        rows = await in_turn(3, {"broken": broken, "well": well}, "u", lambda line: None)
        self.assertEqual((1, "0 bytes arrived"), (calls, rows["broken"].failed))
        self.assertEqual(3, len(rows["well"].samples))

    async def test_nothing(self) -> None:
        """A sample of nothing is a failure, never a number."""

        async def nothing() -> float:
            return 0.0

        rows = await in_turn(2, {"x": nothing}, "u", lambda line: None)
        self.assertEqual(([], "nothing was transferred"), (rows["x"].samples, rows["x"].failed))

    async def test_skip(self) -> None:
        """Who is not there is skipped with the reason, which is no failure."""

        async def absent() -> float:
            raise Skipped("x is not installed")

        rows = await in_turn(2, {"x": absent}, "u", lambda line: None)
        self.assertEqual(("x is not installed", ""), (rows["x"].skipped, rows["x"].failed))


class FileTests(SynchronousTestCase):
    """Results as JSON."""

    def test_round_trip(self) -> None:
        """What is read is what was written."""
        section = Section("relay", "Relay", "note", [table([1.0], [2.0], least=3.0)])
        section.machine = {"CPU": "a fast one"}
        file = Path(self.mktemp())
        save([section], file)
        self.assertEqual([section], load(file))

    def test_none(self) -> None:
        """No file is no result."""
        self.assertEqual([], load(Path(self.mktemp())))

    def test_failures(self) -> None:
        """A section names what failed."""
        section = Section("s", "S", tables=[Table("t", "u", rows=[Row("x", failed="it broke")])])
        self.assertEqual(["t: x: it broke"], section.failures)
