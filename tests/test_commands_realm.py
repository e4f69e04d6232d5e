"""``ntm realm``, ``ntm user`` and ``ntm device``, as they are typed."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import click
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.commands.main import main
from ntmobile.commands.output import read_password
from ntmobile.servers.passwords import verify_password
from ntmobile.servers.realm import Realm
from tests.realms import MemoryRealm

DC1, ALICE = "dc1.ntm.example", "alice.dc1.ntm.example"
PHONE = "phone." + ALICE


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


class CommandTestCase(SynchronousTestCase):
    """Commands in a directory of their own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.realm = str(self.directory)

    def run_ntm(self, *words: str, given: str | None = None) -> Result:
        """Run the ntm command."""
        return CliRunner().invoke(main, words, input=given, prog_name="ntm")

    def ok(self, *words: str, given: str | None = None) -> str:
        """Run it; it succeeds, says nothing on standard error, and fits 80 columns.

        A command that goes on in the next line is returned as one.
        """
        result = self.run_ntm(*words, given=given)
        self.assertEqual((result.exit_code, result.stderr), (0, ""), result.output)
        shown = result.stdout.replace(self.realm, "DIR")
        self.assertEqual([line for line in shown.splitlines() if len(line) > 80], [])
        return re.sub(r" \\\n +", " ", shown)

    def fails(self, *words: str, given: str | None = None) -> str:
        """Run it; it fails with exactly one line on standard error, and nothing else."""
        result = self.run_ntm(*words, given=given)
        self.assertNotEqual(result.exit_code, 0, result.output)
        self.assertIsInstance(result.exception, SystemExit)
        self.assertEqual((result.stdout, result.stderr.count("\n")), ("", 1), result.output)
        return result.stderr.strip()

    def make(self) -> None:
        """A realm with one coordinator."""
        self.ok("realm", "init", self.realm, "--domain", "ntm.example")
        self.ok("realm", "add-dc", self.realm, DC1, "--address", "127.0.0.1")

    def password_file(self, text: str = "correct horse\n") -> str:
        """A private file with a password."""
        path = Path(self.mktemp())
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def add(self, name: str = "alice") -> str:
        """Add a user."""
        file = self.password_file()
        return self.ok("user", "add", name, "--realm", self.realm, "--password-file", file)


class RealmTests(CommandTestCase):
    """``ntm realm``."""

    def test_from_nothing(self) -> None:
        """Each command says what it made and what to type next, and that works."""
        text = self.ok("realm", "init", self.realm, "--domain", "ntm.example")
        self.assertIn("127.0.0.1 port 4335", text)
        self.assertIn("Next: ntm realm add-dc DIR dc1.ntm.example --address ADDRESS", text)
        text = self.ok("realm", "add-dc", self.realm, DC1, "--address", "127.0.0.1")
        self.assertIn("twistd -n ntm-dc --config DIR/dc1.ntm.example/dc.toml", text)
        self.assertIn("ns.dc1.ntm.example. A 127.0.0.1", text)
        text = self.ok(
            "realm", "add-relay", self.realm, "r1", "--dc", DC1, "--address", "127.0.0.1"
        )
        self.assertIn("twistd -n ntm-relay --config DIR/relays/r1.toml", text)
        text = self.ok("realm", "show", self.realm)
        self.assertEqual(
            [line.split() for line in text.splitlines()],
            [
                ["ROLE", "NAME", "ADDRESSES", "PORT"],
                ["as", "ntm.example", "127.0.0.1", "4335"],
                ["dc", DC1, "127.0.0.1", "4330"],
                ["rs", "r1.dc1.ntm.example", "127.0.0.1", "4331"],
            ],
        )

    def test_init_again(self) -> None:
        """A second init says so and changes nothing; for another domain it fails."""
        self.make()
        before = (self.directory / "as.toml").read_bytes()
        text = self.ok("realm", "init", self.realm, "--domain", "ntm.example", "--port", "9")
        self.assertIn("nothing was changed", text)
        self.fails("realm", "init", self.realm, "--domain", "else.example")
        self.assertEqual((self.directory / "as.toml").read_bytes(), before)

    def test_add_again(self) -> None:
        """A second add-dc says what it changed, or that it changed nothing."""
        self.make()
        words = ("realm", "add-dc", self.realm, DC1, "--address", "127.0.0.1")
        self.assertIn("nothing was changed", self.ok(*words))
        self.assertIn("changed: port, dns_port.", self.ok(*words, "--port", "9", "--dns-port", "8"))

    def test_relay_with_two_addresses(self) -> None:
        """A relay that would not start is not made."""
        self.make()
        words = ["realm", "add-relay", self.realm, "r9", "--dc", DC1]
        text = self.fails(*words, "--address", "127.0.0.1", "--address", "127.0.0.2")
        self.assertIn("at most one address of each family", text)
        self.assertFalse((self.directory / "relays" / "r9").exists())
        self.ok(*words, "--address", "127.0.0.1", "--address", "::1")

    def test_unreachable_account_server(self) -> None:
        """A coordinator elsewhere that could not find its account server is told in time."""
        self.ok("realm", "init", self.realm, "--domain", "ntm.example")
        text = self.ok("realm", "add-dc", self.realm, DC1, "--address", "192.0.2.1")
        self.assertIn("so only on this machine", text)

    def test_trust(self) -> None:
        """Trust says which servers were told, and what to do for those that are elsewhere."""
        self.make()
        bundle = self.directory / "else.pem"
        bundle.write_bytes(MemoryRealm("else.example").authority.to_pem())
        text = self.ok("realm", "trust", self.realm, "else.example", str(bundle))
        self.assertIn("DIR/dc1.ntm.example/dc.toml", text)
        self.assertIn("trusts else.example", self.ok("realm", "show", self.realm))
        (self.directory / DC1).rename(self.mktemp())
        text = self.ok("realm", "trust", self.realm, "else.example", str(bundle))
        self.assertIn("Not here, so not told: dc1.ntm.example", text)

    def test_renew(self) -> None:
        """Renewing says that there is nothing to renew."""
        self.make()
        self.assertIn("nothing was changed", self.ok("realm", "renew", self.realm))

    def test_renew_elsewhere(self) -> None:
        """Renewing says of which servers it knows nothing, because they were moved away."""
        self.make()
        (self.directory / DC1).rename(self.mktemp())
        text = self.ok("realm", "renew", self.realm)
        self.assertIn("No certificate here is near its end", text)
        self.assertIn(f"Not here, so not looked at: {DC1}.", text)

    def test_trust_another_authority(self) -> None:
        """An authority is not trusted for names that cannot be its: files were mixed up."""
        self.make()
        for suffix in ("else.example", "ntm.test"):
            bundle = str(self.directory / "ca.pem")
            text = self.fails("realm", "trust", self.realm, suffix, bundle)
            self.assertIn("the authority of ntm.example, which", text)
        self.assertNotIn("trusts", self.ok("realm", "show", self.realm))

    def test_wrong_arguments(self) -> None:
        """Each wrong value is one line that says what would be right."""
        init = ("realm", "init", self.realm, "--domain")
        self.assertIn("no label", self.fails(*init, "NTM.example"))
        self.assertIn("such as 203.0.113.1", self.fails(*init, "ntm.example", "--address", "dc1"))
        self.assertIn(
            "not where a server can be", self.fails(*init, "ntm.example", "--address", "0.0.0.0")
        )
        self.assertFalse(self.directory.exists())
        self.assertIn("is no realm", self.fails("realm", "show", self.realm))


class UserTests(CommandTestCase):
    """``ntm user``."""

    def setUp(self) -> None:
        super().setUp()
        self.make()

    def hash_of(self, name: str = ALICE) -> str | None:
        """The password hash of a user, if there is one."""
        accounts = Realm(self.directory).accounts()
        try:
            user = accounts.user(name)
            return user.password_hash if user else None
        finally:
            accounts.close()

    def test_added(self) -> None:
        """A user is added with the password of a file, and the next step is said."""
        text = self.add()
        command = "ntm enroll alice@dc1.ntm.example --device phone --trust ca.pem"
        self.assertIn(command + " --dc 127.0.0.1:4330", text)
        self.assertTrue(verify_password(self.hash_of(), "correct horse"))
        text = self.ok("user", "list", "--realm", self.realm)
        self.assertEqual(text.splitlines()[1].split(), [ALICE, "enabled", "0"])

    def test_password_is_not_shown(self) -> None:
        """R6: the password appears in no output."""
        self.assertNotIn("horse", self.add())

    def test_from_standard_input(self) -> None:
        """A dash takes the password from standard input."""
        words = ("user", "add", "alice", "--realm", self.realm, "--password-file", "-")
        self.ok(*words, given="correct horse\r\nmore\n")
        self.assertTrue(verify_password(self.hash_of(), "correct horse"))

    def test_asked(self) -> None:
        """On a terminal the password is asked for twice, and both must agree."""
        answers = iter(["correct horse", "correct horse"])
        prompts: list[str] = []

        def prompt(text: str, **options: object) -> str:
            prompts.append(text)
            self.assertTrue(options["hide_input"])
            self.assertTrue(options["confirmation_prompt"])
            return next(answers)

        self.patch(click, "prompt", prompt)
        self.patch(sys, "stdin", Terminal())
        self.assertEqual(read_password(None, confirm=True), "correct horse")
        self.assertEqual(prompts, ["Password"])

    def test_nobody_to_ask(self) -> None:
        """Without a terminal the file is asked for."""
        text = self.fails("user", "add", "alice", "--realm", self.realm, given="")
        self.assertIn("use --password-file", text)

    def test_bad_passwords(self) -> None:
        """Empty and short passwords are refused, and nobody is added."""
        for password in ("", "\n", "   \n", "short\n"):
            file = self.password_file(password)
            text = self.fails(
                "user", "add", "alice", "--realm", self.realm, "--password-file", file
            )
            self.assertIn("the password is", text)
        self.assertIsNone(self.hash_of())

    def test_file_that_everybody_may_read(self) -> None:
        """R6: a password file that everybody may read is refused, with the remedy."""
        file = Path(self.password_file())
        file.chmod(0o644)
        words = ("user", "add", "alice", "--realm", self.realm, "--password-file", str(file))
        self.assertIn(f"run chmod 600 {file}", self.fails(*words))

    def test_no_file(self) -> None:
        """A missing password file is one line that names it."""
        words = ("user", "add", "alice", "--realm", self.realm, "--password-file", "nowhere")
        self.assertIn("nowhere: cannot be read: No such file", self.fails(*words))

    def test_twice(self) -> None:
        """A second user of that name is refused before a password is asked for."""
        self.add()
        text = self.fails("user", "add", "alice@dc1.ntm.example", "--realm", self.realm)
        self.assertIn("alice.dc1.ntm.example is there already", text)

    def test_bad_names(self) -> None:
        """R1: reserved, foreign and impossible names are refused."""
        for name in ("ns", "Alice", "alice@dc9.ntm.example", "a.b.c"):
            self.fails("user", "add", name, "--realm", self.realm, "--password-file", "-")

    def test_password_changed(self) -> None:
        """The password can be changed."""
        self.add()
        file = self.password_file("battery staple")
        self.ok("user", "password", "alice", "--realm", self.realm, "--password-file", file)
        self.assertTrue(verify_password(self.hash_of(), "battery staple"))

    def test_disabled_and_enabled(self) -> None:
        """A user is disabled and enabled; an unknown one is an error."""
        self.add()
        text = self.ok("user", "disable", "alice", "--realm", self.realm)
        self.assertIn("is disabled; 0 devices were revoked.", text)
        self.assertIn("disabled", self.ok("user", "list", "--realm", self.realm))
        self.ok("user", "enable", "alice", "--realm", self.realm)
        self.assertNotIn("disabled", self.ok("user", "list", "--realm", self.realm))
        self.assertIn("no user", self.fails("user", "disable", "bob", "--realm", self.realm))


class DeviceTests(CommandTestCase):
    """``ntm device``."""

    def setUp(self) -> None:
        super().setUp()
        self.make()
        self.add()
        accounts = Realm(self.directory).accounts()
        self.addCleanup(accounts.close)
        self.accounts = accounts
        self.certificate = MemoryRealm().device(PHONE)[2]
        accounts.enroll(self.certificate, time.time(), replace=False)

    def test_list(self) -> None:
        """Devices are listed with their dates, removed ones as such."""
        text = self.ok("device", "list", "alice", "--realm", self.realm)
        self.assertTrue(text.splitlines()[1].startswith(PHONE + "  20"))
        self.ok("device", "remove", PHONE, "--realm", self.realm)
        text = self.ok("device", "list", ALICE, "--realm", self.realm)
        self.assertTrue(text.splitlines()[1].endswith("removed"))

    def test_removed_under_a_running_server(self) -> None:
        """R34: a server that has the accounts open sees the revocation at once."""
        before = self.accounts.last_change()
        self.ok("device", "remove", PHONE, "--realm", self.realm)
        changes = self.accounts.changes_since(before)
        self.assertEqual(
            [each.serial for change in changes for each in change.revoked],
            [self.certificate.serial],
        )

    def test_unknown(self) -> None:
        """What is not there is an error that says how to see what is."""
        text = self.fails("device", "remove", "tablet." + ALICE, "--realm", self.realm)
        self.assertIn("ntm device list", text)
        self.assertIn("ntm user list", self.fails("device", "list", "bob", "--realm", self.realm))
        self.fails("device", "remove", "phone", "--realm", self.realm)
