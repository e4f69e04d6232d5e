"""The ``ntm`` command itself: its table, its laziness, its errors."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.commands.main import COMMANDS, LazyGroup, main
from ntmobile.errors import Unreachable

ROOT = Path(__file__).resolve().parent.parent


class TableTests(SynchronousTestCase):
    """The table of commands and what it promises."""

    def test_rows_lead_to_commands(self) -> None:
        """Each row whose module is there leads to a click command that explains itself."""
        for name, row in COMMANDS.items():
            if find_spec(row.path) is not None:
                command = row.load()
                self.assertEqual(0, CliRunner().invoke(command, ["--help"]).exit_code, name)
                self.assertTrue(command.help, f"{name} has no help")

    def test_summaries_fit_the_list(self) -> None:
        """A summary is one short line without a full stop."""
        for name, row in COMMANDS.items():
            self.assertLess(len(row.summary), 60, name)
            self.assertFalse(row.summary.endswith("."), name)

    def test_help_imports_no_command(self) -> None:
        """``ntm --help`` lists the commands without importing one of them, or Twisted."""
        program = (
            "import sys\n"
            "from ntmobile.commands.main import main\n"
            "main(['--help'], standalone_mode=False)\n"
            "print(*sys.modules)\n"
        )
        output = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        loaded = set(output.splitlines()[-1].split())
        self.assertIn("Usage:", output)
        self.assertEqual(set(), loaded & {"twisted", *(row.path for row in COMMANDS.values())})


class ErrorTests(SynchronousTestCase):
    """What the user sees when a command does not succeed."""

    def fail_with(self, error: Exception) -> Result:
        """Run a command that raises an error, as ``ntm`` runs its own."""

        @click.command()
        def broken() -> None:
            raise error

        class OneBroken(LazyGroup):
            def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
                return broken

        return CliRunner().invoke(OneBroken(name="ntm"), ["broken"])

    def test_known_error_is_one_line(self) -> None:
        """An error of ours ends in its one line and status 1."""
        result = self.fail_with(Unreachable("dc1.ntm.example does not answer: check the address"))
        self.assertEqual(1, result.exit_code)
        self.assertEqual(
            "Error: dc1.ntm.example does not answer: check the address\n", result.stderr
        )

    def test_file_error_names_the_file(self) -> None:
        """An error of the system about a file names it and the reason in one line."""
        result = self.fail_with(PermissionError(13, "Permission denied", "/srv/realm/ca.pem"))
        self.assertEqual(1, result.exit_code)
        self.assertEqual("Error: /srv/realm/ca.pem: Permission denied\n", result.stderr)

    def test_a_mistake_of_ours_is_not_hidden(self) -> None:
        """Any other error keeps its traceback, which a report needs."""
        self.assertIsInstance(self.fail_with(KeyError("surprise")).exception, KeyError)

    def test_unknown_command(self) -> None:
        """A command that does not exist is named, with status 2."""
        result = CliRunner().invoke(main, ["no-such-command"])
        self.assertEqual(2, result.exit_code)
        self.assertIn("No such command 'no-such-command'", result.stderr)
