"""``python -m ntmobile.bench``: measure, and write ``benchmarks.md``, ``.svg`` and ``.json``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from ntmobile.bench.report import summary
from ntmobile.bench.suite import PARTS, Suite
from ntmobile.lab.supervision import lab_unavailable


def names(text: str) -> list[str]:
    """Parse a list of parts; they are measured in the order of :data:`.suite.PARTS`."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in PARTS]
    if unknown or not wanted:
        known = ", ".join(PARTS)
        raise argparse.ArgumentTypeError(f"parts are {known}; not {', '.join(unknown) or 'none'}")
    return [name for name in PARTS if name in wanted]


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m ntmobile.bench", description="Measure ntmobile beside its peers."
    )
    options.add_argument(
        "--only", type=names, default=list(PARTS), metavar="PART,...", help=", ".join(PARTS)
    )
    options.add_argument("--repeat", type=int, default=5, help="samples of each (default: 5)")
    options.add_argument("--out", type=Path, default=Path("docs"), help="directory (docs)")
    return options


def say(line: str) -> None:
    """Write a line of progress."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run; the status is 1 if something failed, 2 if nothing can be measured here."""
    options = parser().parse_args()
    if options.repeat < 1 or not options.out.is_dir():
        parser().error(f"--repeat is at least 1, and {options.out} must be a directory")
    unavailable = lab_unavailable()
    if unavailable is not None:
        say(f"ntmobile.bench: {unavailable}")
        sys.exit(2)
    suite = Suite(options.out, options.repeat, say)
    react(lambda reactor: Deferred.fromCoroutine(_run(suite, options.only, reactor)))


async def _run(suite: Suite, only: list[str], reactor: object) -> None:
    sections = await suite.run(only, reactor)
    say("")
    for line in summary(sections):
        say(line)
    say(f"\nwritten: {suite.page}")
    if any(section.failures for section in sections):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
