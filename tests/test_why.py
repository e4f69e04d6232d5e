from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.commands import why


def leg(state: str, *, active: bool = False, relay: str = "rs1") -> dict[str, Any]:
    """A path through a relay, as the agent tells of it."""
    return {
        "kind": "relay",
        "remote": "203.0.113.9:4331",
        "relay": relay,
        "state": state,
        "rtt_ms": 12.0 if active else None,
        "active": active,
    }


class WhyTests(SynchronousTestCase):
    """What ``ntm why`` makes of what the agent says."""

    def told(self, *paths: dict[str, Any], words: tuple[str, ...] = ()) -> str:
        """The lines about these paths."""
        found = {"problem": "", "decision": "", "paths": list(paths)}
        self.patch(why, "call", lambda state, command, name: found)
        ran = CliRunner().invoke(why.why, ["--state", str(Path("x")), *words, "name"])
        self.assertEqual(0, ran.exit_code)
        return ran.output

    def test_legs_of_one_relay(self) -> None:
        """A relay with a leg for each direction is one way: as it is used, or else as it works."""
        unused, used = leg("unknown"), leg("valid", active=True)
        line = "* relay rs1 203.0.113.9:4331: works, 12.0 ms, carries the traffic\n"
        self.assertEqual(line, self.told(unused, used))
        self.assertEqual(line, self.told(used, leg("valid")))
        said = self.told(leg("failed"), leg("valid"), unused)
        self.assertEqual("  relay rs1 203.0.113.9:4331: works\n", said)

    def test_two_relays(self) -> None:
        """Two relays are two ways, in the order of the agent."""
        said = self.told(leg("failed", relay="rs2"), leg("valid"))
        self.assertEqual(["rs2", "rs1"], [line.split()[1] for line in said.splitlines()])

    def test_programs(self) -> None:
        """Programs get every path."""
        said = self.told(leg("unknown"), leg("valid"), words=("--json",))
        self.assertEqual(2, len(json.loads(said)["paths"]))
