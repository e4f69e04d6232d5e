"""What ``ntm exec`` says where there is no virtual network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client import control
from ntmobile.commands.main import main


class NoNetworkTests(SynchronousTestCase):
    """No program is run: one line, and the status 125."""

    def says(self) -> str:
        state = Path(self.mktemp())
        state.mkdir(parents=True)
        (state / "node.toml").touch()
        result = CliRunner().invoke(main, ["exec", "--state", str(state), "--", "true"])
        self.assertEqual((result.exit_code, result.stdout), (125, ""))
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        return result.stderr.replace(str(state), "DIR").strip()

    def test_no_agent(self) -> None:
        """Where no agent runs, it is to be started."""
        self.assertEqual(
            self.says(),
            "ntm exec: no virtual network runs in DIR; start the agent: ntm up --state DIR",
        )

    def test_agent_without_network(self) -> None:
        """Where one runs, it knows what hinders it; to start it again would not help."""

        def status(*_: Any) -> dict[str, str]:
            return {"attachment": "namespaces are not permitted here"}

        self.patch(control, "call", status)
        self.assertEqual(
            self.says(),
            "ntm exec: no virtual network runs in DIR: namespaces are not permitted here",
        )
