"""``ntm enroll`` and ``ntm logout`` as they are typed, with an AS and a DC as real processes."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.identity import DeviceIdentity
from ntmobile.client.state import DEVICE, SETTINGS, default_state
from ntmobile.commands.agent import last_line
from ntmobile.commands.main import main
from ntmobile.servers.realm import Realm
from tests.platforms import HOST, free_port
from tests.realms import MemoryRealm
from tests.server_processes import (
    DC1,
    NTM,
    PASSWORD,
    TWISTD,
    LoginServers,
    python,
)

ALICE = f"alice@{DC1}"
PHONE = f"phone.alice.{DC1}"


class CommandTests(SynchronousTestCase):
    """A device's life, with the commands."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.servers = LoginServers(self.directory / "realm")
        self.addCleanup(self.servers.stop)
        self.servers.wait()
        self.password = self.directory / "password"
        self.write_password(PASSWORD)

    def write_password(self, text: str) -> None:
        self.password.write_text(text + "\n")
        self.password.chmod(0o600)

    def ntm(self, *words: object) -> tuple[int, str, str]:
        done = python(NTM, *map(str, words))
        return done.returncode, done.stdout, done.stderr

    def enroll(self, state: Path, *more: object, device: str) -> tuple[int, str, str]:
        words = ["enroll", ALICE, "--device", device, "--state", state, "--dc", self.servers.dc]
        bundle = self.servers.realm.directory / "ca.pem"
        return self.ntm(*words, "--trust", bundle, "--password-file", self.password, *more)

    def test_life(self) -> None:
        """Enrol, be refused again, replace, log out: each says what it did or what to do."""
        state = self.directory / "phone"
        status, out, err = self.enroll(state, device="phone")
        self.assertEqual((status, err), (0, f"Enrolling {PHONE} ...\n"))
        self.assertIn(f"This is {PHONE} now: ", out)
        self.assertIn("ntm up --state", out)
        first = DeviceIdentity.load(state)

        status, out, err = self.enroll(state, device="phone")
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        self.assertIn("is enrolled here already; --replace", err)

        status, _, err = self.enroll(state, "--replace", device="phone")
        self.assertEqual(status, 0, err)
        second = DeviceIdentity.load(state)
        self.assertNotEqual(first.certificate.identity, second.certificate.identity)

        status, out, err = self.ntm("logout", "--state", state)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(out, f"{PHONE} is revoked, and its keys are removed.\n")
        self.assertFalse((state / DEVICE).exists())
        self.assertTrue((state / SETTINGS).exists())

        status, out, err = self.ntm("logout", "--state", state)
        self.assertEqual((status, err.count("\n")), (1, 1))
        self.assertIn("no device is enrolled here; see ntm enroll", err)

    def test_wrong_password(self) -> None:
        """R2: a wrong password is one line, and leaves no directory."""
        self.write_password("a wrong password")
        status, out, err = self.enroll(self.directory / "laptop", device="laptop")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err.splitlines()[1:], ["Error: the user name or the password is wrong"])
        self.assertFalse((self.directory / "laptop").exists())

    def test_taken_name(self) -> None:
        """R3: the name of a device elsewhere is taken over with --replace only."""
        self.assertEqual(self.enroll(self.directory / "one", device="tablet")[0], 0)
        status, _, err = self.enroll(self.directory / "two", device="tablet")
        self.assertEqual(status, 1)
        self.assertIn("--replace takes its place", err)
        status, _, err = self.enroll(self.directory / "two", "--replace", device="tablet")
        self.assertEqual(status, 0, err)
        status, out, err = self.ntm("logout", "--state", self.directory / "one")
        self.assertEqual(status, 0, err)
        self.assertIn("which was no device any more", out)

    def test_no_coordinator(self) -> None:
        """A coordinator that does not answer is named; a logout changes nothing without --force."""
        state = self.directory / "watch"
        self.assertEqual(self.enroll(state, device="watch")[0], 0)
        text = (state / SETTINGS).read_text().replace(self.servers.dc, f"{HOST}:{free_port()}")
        (state / SETTINGS).write_text(text)
        status, _, err = self.ntm("logout", "--state", state)
        self.assertEqual((status, err.count("\n")), (1, 1))
        self.assertIn("nothing was changed", err)
        self.assertTrue((state / DEVICE).exists())
        status, out, err = self.ntm("logout", "--state", state, "--force")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("was not revoked", out)
        self.assertFalse((state / DEVICE).exists())


class SecretTests(SynchronousTestCase):
    """R6: what servers and commands print."""

    def test_no_secrets(self) -> None:
        """R6: after an enrolment no log and no output has password or keys, in any form."""
        directory = Path(self.mktemp()).resolve()
        servers = LoginServers(directory / "realm")
        self.addCleanup(servers.stop)
        servers.wait()
        state, password = directory / "phone", directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o600)
        words = ["enroll", ALICE, "--device", "phone", "--state", state, "--dc", servers.dc]
        bundle = servers.realm.directory / "ca.pem"
        words += ["--trust", bundle, "--password-file", password]
        done = python(NTM, *map(str, words))
        self.assertEqual(done.returncode, 0, done.stderr)
        password.write_text("a wrong secret that no log may have")
        wrong = python(
            NTM, *map(str, [*words, "--trust", bundle, "--password-file", password, "--replace"])
        )
        self.assertEqual(wrong.returncode, 1)
        log = servers.stop()
        self.assertIn(f"{PHONE} enrolled from {HOST}", log)
        self.assertIn(f"{PHONE} logged in", log)
        self.assertIn("the user name or the password is wrong", log)
        printed = log + done.stdout + done.stderr + wrong.stdout + wrong.stderr
        keys = DeviceIdentity.load(state).keys
        secrets = [keys.identity.private_bytes_raw(), keys.x25519.private_bytes_raw()]
        secrets.append(keys.xwing_seed)
        for secret in secrets:
            for shown in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)):
                self.assertNotIn(shown, printed)
        for text in (PASSWORD, "a wrong secret", "argon2", "PRIVATE KEY"):
            self.assertNotIn(text, printed)


class AccountServerProcessTests(SynchronousTestCase):
    """``twistd -n ntm-as``: one clear line, and a status."""

    def setUp(self) -> None:
        self.port = free_port()
        directory = Path(self.mktemp()).resolve()
        directory.parent.mkdir(parents=True, exist_ok=True)
        self.realm = Realm.create(directory, "ntm.example", [HOST], self.port)
        self.config = directory / "as.toml"

    def fails(self) -> str:
        """Start it; it ends with one line of its own. Once it logs, that line is in its log."""
        done = python(TWISTD, "--nodaemon", "--pidfile=", "ntm-as", f"--config={self.config}")
        self.assertNotEqual(done.returncode, 0)
        printed = done.stderr + done.stdout
        lines = [line for line in printed.splitlines() if "ntm-as: " in line]
        self.assertEqual(len(lines), 1, printed)
        self.assertNotIn("Traceback", printed)
        return lines[0]

    def test_port_in_use(self) -> None:
        """A port that another program has is named."""
        with socket.socket() as other:
            other.bind((HOST, self.port))
            other.listen()
            line = self.fails()
        self.assertIn(f"port {self.port} of {HOST}", line)

    def test_unreadable(self) -> None:
        """A configuration that is not there is named."""
        self.config.unlink()
        self.assertIn("as.toml: cannot be read: No such file or directory", self.fails())

    def test_unknown_key(self) -> None:
        """An unknown key is named, with the likely one."""
        self.config.write_text("leese = 5\n" + self.config.read_text())
        self.assertRegex(self.fails(), "leese: unknown key; did you mean 'lease'")

    def test_public_key_file(self) -> None:
        """R6: a key that everybody may read is refused."""
        key = self.realm.directory / "as" / "as.key"
        key.chmod(0o644)
        self.assertIn("everybody may read it; run chmod 600", self.fails())

    def test_wrong_key(self) -> None:
        """A key that is not the certificate's is refused."""
        key = self.realm.directory / "as" / "device-ca.key"
        (self.realm.directory / "as" / "as.key").write_bytes(key.read_bytes())
        self.assertIn("the certificate is not for the key", self.fails())


class RefusalTests(SynchronousTestCase):
    """What ``ntm enroll`` refuses before it asks anybody."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)
        self.state = self.directory / "state"

    def fails(self, *words: str, account: str = ALICE, device: str = "phone") -> str:
        every = ["enroll", account, "--device", device, "--state", str(self.state), *words]
        result = CliRunner().invoke(main, every, prog_name="ntm")
        self.assertNotEqual(result.exit_code, 0)
        self.assertEqual(result.stdout, "")
        self.assertFalse(self.state.exists() and (self.state / DEVICE).exists())
        return result.stderr.strip()

    def bundle(self, realm: str = "ntm.example") -> str:
        path = self.directory / f"{realm}.pem"
        path.write_bytes(MemoryRealm(realm).authority.to_pem())
        return str(path)

    def test_account(self) -> None:
        """An account is USER@DOMAIN."""
        self.assertIn("write USER@DOMAIN", self.fails(account="alice"))

    def test_device(self) -> None:
        """A device is one label."""
        self.assertIn("is no label", self.fails(device="my phone"))

    def test_no_trust(self) -> None:
        """Without the realm's authority there is nobody to trust."""
        self.assertIn("--trust CA.pem is needed", self.fails())

    def test_trust_of_another_realm(self) -> None:
        """The authority must be that of the account's realm."""
        line = self.fails("--trust", self.bundle("else.example"))
        self.assertIn("the authority of else.example", line)

    def test_no_certificate(self) -> None:
        """A file that is no bundle is named."""
        path = self.directory / "x.pem"
        path.write_text("hello")
        self.assertIn("no PEM certificates", self.fails("--trust", str(path)))

    def test_dc(self) -> None:
        """An address of a coordinator is HOST:PORT."""
        self.assertIn("write HOST:PORT", self.fails("--dc", "a b"))

    def test_other_directory(self) -> None:
        """A directory with other things in it is not used."""
        self.state.mkdir()
        (self.state / "thesis.tex").write_text("")
        line = self.fails("--trust", self.bundle())
        self.assertIn("holds something else; name another with --state", line)

    def test_no_terminal(self) -> None:
        """Without a terminal and without --password-file nobody can be asked."""
        self.assertIn("use --password-file", self.fails("--trust", self.bundle()))

    def test_public_password_file(self) -> None:
        """R6: a password in a file that everybody may read is refused."""
        path = self.directory / "password"
        path.write_text(PASSWORD)
        path.chmod(0o644)
        line = self.fails("--trust", self.bundle(), "--password-file", str(path))
        self.assertIn("everybody may read it", line)


class UpTests(SynchronousTestCase):
    """What ``ntm up`` refuses."""

    def setUp(self) -> None:
        self.state = Path(self.mktemp())

    def fails(self) -> str:
        result = CliRunner().invoke(main, ["up", "--state", str(self.state)], prog_name="ntm")
        self.assertEqual((result.exit_code, result.stdout), (1, ""), result.output)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        return result.stderr.strip()

    def test_no_device(self) -> None:
        """Without a device there is nothing to start, whether the directory exists or not."""
        self.assertIn(" is not there; check --state, or see ntm enroll", self.fails())
        self.state.mkdir(parents=True)
        self.assertIn("no device is enrolled here; see ntm enroll", self.fails())
        self.assertEqual(list(self.state.iterdir()), [])

    def test_agent_ends(self) -> None:
        """What the agent said at its end is the command's error, whether logged or printed."""
        log = self.state / "agent.log"
        self.state.mkdir(parents=True)
        text = "2026-11-24 08:19:58.724 program: ERROR ntm-client: no port\n"
        for written in (text, "ntm-client: no port\n"):
            log.write_text(f"ntm-client: earlier\n{written}")
            self.assertEqual(last_line(log), "no port")


class DefaultStateTests(SynchronousTestCase):
    """Where the state is if nothing is said."""

    def where(self, **environment: Any) -> str:
        return str(default_state({"HOME": "/home/alice", **environment}))

    def test_environment(self) -> None:
        """NTM_STATE names it."""
        self.assertEqual(self.where(NTM_STATE="/elsewhere"), "/elsewhere")

    def test_xdg(self) -> None:
        """XDG_STATE_HOME holds it; a relative one is ignored, as XDG says."""
        self.patch(default_state.__globals__["sys"], "platform", "linux")
        self.assertEqual(self.where(XDG_STATE_HOME="/var/x"), "/var/x/ntmobile")
        self.assertEqual(self.where(XDG_STATE_HOME="x"), "/home/alice/.local/state/ntmobile")
        self.assertEqual(self.where(), "/home/alice/.local/state/ntmobile")
