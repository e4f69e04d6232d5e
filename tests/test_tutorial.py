"""The tutorial and the how-tos work as they are typed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ntmobile.lab.node import Node
from ntmobile.lab.supervision import ROOT, SEARCH_PATH
from ntmobile.testbed.commands import NTM
from tests.console import Session, Typed
from tests.lab.case import LabTestCase

DOCS = ROOT / "docs"
#: Seconds for one page.
PATIENCE = 100.0

#: A realm with two devices that are up, as the tutorial makes it.
TWO_DEVICES = """
umask 077
ntm realm init realm --domain ntm.example
ntm realm add-dc realm dc1.ntm.example --address 127.0.0.1 --dns-port 5300
ntm realm add-relay realm r1 --dc dc1.ntm.example --address 127.0.0.1
twistd --pidfile=as.pid --logfile=as.log ntm-as --config realm/as.toml
twistd --pidfile=dc1.pid --logfile=dc1.log ntm-dc --config realm/dc1.ntm.example/dc.toml
twistd --pidfile=r1.pid --logfile=r1.log ntm-relay --config realm/relays/r1.toml
for _ in $(seq 100); do grep -q linked dc1.log && break; sleep 0.1; done
make_device() {
    echo "a password of some length" > $1.password
    ntm user add $1 --realm realm --password-file $1.password
    ntm enroll $1@dc1.ntm.example --device $2 --trust realm/ca.pem \\
        --dc 127.0.0.1:4330 --state $2 --password-file $1.password
    ntm up --state $2
}
make_device alice phone
make_device bob laptop
"""
#: The same with a cache server.
CACHE_SERVER = """
ntm realm add-cache realm cs1 --dc dc1.ntm.example --address 127.0.0.1
twistd --pidfile=cs1.pid --logfile=cs1.log ntm-cache --config realm/caches/cs1.toml
"""
STORED_DATA = TWO_DEVICES.replace("\ntwistd", f"{CACHE_SERVER}twistd", 1)


def shim(argv: list[str]) -> str:
    """A script that runs a program which is not installed with this interpreter."""
    quoted = " ".join(f'"{word}"' for word in argv)
    return f'#!/bin/sh\nexec {quoted} "$@"\n'


def prepare_programs(host: Node) -> str:
    """Give a machine ``ntm`` and ``twistd``, installed or not; the PATH to find them."""
    place = host.home / "bin"
    place.mkdir()
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    for name, argv in (("ntm", NTM), ("twistd", twistd)):
        if not Path(sys.executable).with_name(name).exists():
            (place / name).write_text(shim(argv))
            (place / name).chmod(0o755)
    return f"{SEARCH_PATH}:{place}"


class TypedTests(LabTestCase):
    """Pages are typed into the shell of a machine of their own, so that no port is in the way."""

    timeout = 150

    async def type_page(self, name: str, *programs: str, prologue: str = "") -> None:
        """Type everything on a page, after a prologue, and compare."""
        for program in programs:
            if shutil.which(program, path=SEARCH_PATH) is None:
                raise SkipTest(f"the page {name} needs the command {program}")
        session = Session.read(DOCS / name)
        host = await self.new_lab().add(Node, "machine")
        output = await self.typed(host, session, prologue)
        differences = session.differences(output)
        if differences:
            self.fail("\n".join(differences))

    async def typed(self, host: Node, session: Session, prologue: str) -> str:
        """The output of the session's script."""
        script = host.home / "session.sh"
        script.write_text(session.script(prologue))
        environment = {"PATH": prepare_programs(host), "COLUMNS": "80"}
        process = await host.spawn(["bash", str(script)], env=environment)
        await process.exited(PATIENCE)
        return process.output()

    async def test_first_realm(self) -> None:
        """The tutorial: a realm, two devices, programs between them, and a revocation."""
        await self.type_page("tutorial/first-realm.md", "curl", "ping", "python3")

    async def test_programs(self) -> None:
        """Programs inside and outside, names, and SSH between two devices."""
        await self.type_page("howto/programs.md", "ssh", "ip", "curl", prologue=TWO_DEVICES)

    async def test_sending(self) -> None:
        """Stored data: sent to a device that is off, listed, fetched, and confirmed."""
        await self.type_page("howto/sending.md", "python3", prologue=STORED_DATA)

    async def test_second_domain(self) -> None:
        """A second domain on the same machine, and trust in another realm."""
        await self.type_page("howto/second-domain.md", prologue=TWO_DEVICES)

    async def test_setup(self) -> None:
        """The realm of the chapter on operations."""
        await self.type_page("operations/setup.md")


class WidthTests(SynchronousTestCase):
    """What pages show fits a terminal."""

    def test_width(self) -> None:
        """No line of a console session is wider than 80 columns."""
        pages = sorted(DOCS.rglob("*.md"))
        wide = [line for page in pages for line in Session.read(page).too_wide()]
        self.assertEqual(wide, [])


class ConsoleTests(SynchronousTestCase):
    """The comparison itself notices what differs."""

    def test_wildcards(self) -> None:
        """Three dots stand for anything in a line, and alone for any number of lines."""
        typed = Typed(1, "true", ("a ... c", "...", "z"))
        self.assertTrue(typed.matches("a b c\nz\n"))
        self.assertTrue(typed.matches("a  c\none\ntwo\nz\n"))
        self.assertFalse(typed.matches("a b c\none\n"))
        self.assertFalse(typed.matches("a\nz\n"))

    def test_nothing(self) -> None:
        """A command without shown output must print nothing."""
        self.assertTrue(Typed(1, "true", ()).matches(""))
        self.assertFalse(Typed(1, "true", ()).matches("something\n"))

    def test_read(self) -> None:
        """Commands, continuations, output, and what the test is told are read from a page."""
        page = Path(self.mktemp())
        page.write_text(
            "text\n\n<!-- test: status 3 -->\n```console\n$ one \\\n>     more\nout\n$ two\n```\n"
        )
        first, second = Session.read(page).commands
        self.assertEqual((first.text, first.shown, first.status), ("one \\\n    more", ("out",), 0))
        self.assertEqual((second.text, second.shown, second.status), ("two", (), 3))
