"""The page, the picture and the summary of benchmarks."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.bench.plot import svg
from ntmobile.bench.report import TIMES, markdown, number, summary
from ntmobile.bench.results import OWN, Bar, Row, Section, Table
from ntmobile.bench.suite import Suite


def sections() -> list[Section]:
    """One section with a peer, one that is skipped and one that failed."""
    rows = [
        Row(OWN, [60.0, 50.0, 70.0], "path: direct"),
        Row("peer <1>", [20.0, 21.0, 19.0]),
        Row("absent", skipped="it is not installed"),
        Row("broken", failed="it | broke"),
    ]
    bars = [Bar(OWN, "peer <1>", least=4.0), Bar(OWN, "absent", least=1.0), Bar(OWN, least=50.0)]
    first = Section("relay", "Relay", "How.", [Table("Speed", "Gbit/s", rows=rows, bars=bars)])
    first.date, first.machine = "2026-01-02 03:04 UTC", {"CPU": "x", "load before": "0.10"}
    return [first]


class PageTests(SynchronousTestCase):
    """The Markdown."""

    def test_ratio(self) -> None:
        """Each peer's line has the median, the spread with the number of samples, and the ratio."""
        self.assertIn(
            f"| peer <1> | 20.0 | 19.0 to 21.0 (3) | 3.00 {TIMES} |", markdown(sections())
        )

    def test_bars(self) -> None:
        """Bars are told as they are: met, not met, not measured."""
        page = markdown(sections())
        self.assertIn(f"ntmobile: ≥ 4.00 {TIMES} peer <1>: 3.00 {TIMES}, **not met**", page)
        self.assertIn(f"ntmobile: ≥ 1.00 {TIMES} absent: **not measured**", page)
        self.assertIn("ntmobile: ≥ 50.0 Gbit/s: 60.0 Gbit/s, **met**", page)

    def test_skipped_and_failed(self) -> None:
        """What has no samples says why, and does not break the table."""
        page = markdown(sections())
        self.assertIn("| absent | - | - | - | skipped: it is not installed |", page)
        self.assertIn("| broken | - | - | - | **failed**: it \\| broke |", page)

    def test_machine_and_date(self) -> None:
        """It tells the machine and when it was."""
        page = markdown(sections())
        self.assertIn("| CPU | x |", page)
        self.assertIn("Measured 2026-01-02 03:04 UTC.", page)
        self.assertIn("relay 0.10", page)

    def test_numbers(self) -> None:
        """Numbers have three figures, or all that stand before the point."""
        shown = [number(value) for value in (0, 0.1234, 1.234, 12.34, 123.4, 1234567.8)]
        self.assertEqual(["0", "0.123", "1.23", "12.3", "123", "1 234 568"], shown)

    def test_summary(self) -> None:
        """What is printed last has every bar and every failure."""
        lines = list(summary(sections()))
        self.assertEqual(4, len(lines))
        self.assertEqual("FAILED: Speed: broken: it | broke", lines[-1])


class PictureTests(SynchronousTestCase):
    """The SVG."""

    def test_bars(self) -> None:
        """It is XML with one bar for each row that has samples; names are escaped."""
        root = ElementTree.fromstring(svg(sections()))
        names = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
        bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))
        self.assertIn("peer <1>", names)
        self.assertEqual(["own", "peer"], [bar.get("class") for bar in bars])
        widths = [float(bar.get("width", "0")) for bar in bars]
        self.assertAlmostEqual(3.0, widths[0] / widths[1], 1)

    def test_fits(self) -> None:
        """Bars, spreads and most of each number are within the picture."""
        root = ElementTree.fromstring(svg(sections()))
        width = float(root.get("viewBox", "").split()[2])
        places = [float(each.get(name, "0")) for each in root.iter() for name in ("x", "x1", "x2")]
        self.assertLessEqual(max(places), width - 60)

    def test_dark(self) -> None:
        """It has colours for dark pages, too."""
        self.assertIn("prefers-color-scheme: dark", svg(sections()))

    def test_dwarfing(self) -> None:
        """One that would dwarf all others is cut off, and says so."""
        table = sections()[0].tables[0]
        table.rows.append(Row("no tunnel", [900.0]))
        self.assertIn("900, cut off", svg([Section("s", "S", tables=[table])]))

    def test_nothing(self) -> None:
        """Without peers it is still a picture."""
        ElementTree.fromstring(svg([]))


class SuiteTests(SynchronousTestCase):
    """What a run writes."""

    def test_keeps_other_parts(self) -> None:
        """A part takes the place of its earlier self; the others stay, in the usual order."""
        directory = Path(self.mktemp())
        directory.mkdir()
        suite = Suite(directory, 5, lambda line: None)
        suite.write(Section("tunnel", "Tunnel", "old note"))
        suite.write(Section("relay", "Relay"))
        suite.write(Section("tunnel", "Tunnel", "new note"))
        page = suite.page.read_text(encoding="utf-8")
        self.assertLess(page.index("## Relay"), page.index("## Tunnel"))
        self.assertEqual((True, False), ("new note" in page, "old note" in page))
        self.assertTrue((directory / "benchmarks.svg").exists())
