"""The documents say what is so: configuration, rules and their tests, what is printed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
from twisted.internet import reactor
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface

import ntmobile
from ntmobile import plugins
from ntmobile.client.account import Account
from ntmobile.client.settings import load_settings
from ntmobile.commands.main import main
from ntmobile.errors import ConfigurationError
from ntmobile.interfaces import (
    IAccountStoreProvider,
    IAttachmentProvider,
    ICacheStorageProvider,
    ICoordinatorLookupProvider,
    ILocationStoreProvider,
    INetworkWatcherProvider,
    INotificationPresenterProvider,
    INotifierProvider,
    IWaitingStoreProvider,
    Quotas,
)
from ntmobile.lab.supervision import ROOT
from ntmobile.machines.signalling.session import Keys, hello, welcome
from ntmobile.plugins.section import Section
from ntmobile.servers.cache_configuration import load_cache
from ntmobile.servers.configuration import load_account_server, load_coordinator, load_relay
from ntmobile.servers.realm import Realm
from ntmobile.wire.codec import decode
from ntmobile.wire.messages.realtime import KeepAlive

DOCS = ROOT / "docs"
#: The rules.
RULES = [f"R{number}" for number in range(1, 35)]
#: Provider interface → the section of the file that configures it.
SECTIONS: dict[type[Interface], str] = {
    ICoordinatorLookupProvider: "lookup",
    ILocationStoreProvider: "locations",
    IWaitingStoreProvider: "waiting",
    INotifierProvider: "notify",
    IAccountStoreProvider: "store",
    ICacheStorageProvider: "storage",
    IAttachmentProvider: "attachment",
    INetworkWatcherProvider: "watch",
    INotificationPresenterProvider: "notify",
}


class ConfigurationTests(SynchronousTestCase):
    """The reference of the configuration has every key that there is."""

    def setUp(self) -> None:
        self.page = (DOCS / "operations" / "configuration.md").read_text(encoding="utf-8")
        self.asked: set[str] = set()
        take = Section._take

        def noting(section: Section, key: str, *rest: Any) -> Any:
            self.asked.add(section._full(key))
            return take(section, key, *rest)

        self.patch(Section, "_take", noting)

    def part(self, file: str) -> str:
        """What the page says of one file: from its heading to the next."""
        found = re.search(rf"^## `?{re.escape(file)}`?$.*?(?=^## |\Z)", self.page, re.M | re.S)
        assert found is not None, f"no heading for {file}"
        return found[0]

    def assert_told(self, file: str) -> None:
        """Every key that was asked for is in the file's part of the page."""
        # Cache servers are keys by their names.
        asked = {"caches" if key.startswith("caches.") else key for key in self.asked}
        missing = sorted(key for key in asked if f"`{key}`" not in self.part(file))
        self.assertEqual(missing, [])

    def realm(self) -> Path:
        """A realm with a coordinator, a relay and a cache server."""
        directory = Path(self.mktemp())
        realm = Realm.create(directory, "ntm.example", ["127.0.0.1"], 4335)
        realm.add_coordinator("dc1.ntm.example", ["127.0.0.1"])
        realm.add_relay("r1", "dc1.ntm.example", ["127.0.0.1"])
        realm.add_cache("cs1", "dc1.ntm.example", ["127.0.0.1"])
        self.asked.clear()
        return directory

    def test_account_server(self) -> None:
        """Each key of as.toml."""
        load_account_server(self.realm() / "as.toml")
        self.assert_told("as.toml")

    def test_coordinator(self) -> None:
        """Each key of dc.toml."""
        load_coordinator(self.realm() / "dc1.ntm.example" / "dc.toml")
        self.assert_told("dc.toml")

    def test_relay(self) -> None:
        """Each key of a relay's file."""
        load_relay(self.realm() / "relays" / "r1.toml")
        self.assert_told("relays/NAME.toml")

    def test_cache(self) -> None:
        """Each key of a cache server's file."""
        load_cache(self.realm() / "caches" / "cs1.toml")
        self.assert_told("caches/NAME.toml")

    def test_device(self) -> None:
        """Each key of node.toml."""
        state = Path(self.mktemp())
        state.mkdir()
        account = Account.parse("alice@dc1.ntm.example", "phone", ("127.0.0.1", 4330))
        (state / "node.toml").write_bytes(account.to_toml())
        self.asked.clear()
        load_settings(state)
        self.assert_told("node.toml")

    def test_plugins(self) -> None:
        """Each plugin by name, with each key of its section."""
        told = self.part("Plugins")
        missing = []
        for interface, section in SECTIONS.items():
            found: Iterable[Any] = getPlugins(interface, plugins)
            for plugin in found:
                if f"`{plugin.name}`" not in told:
                    missing.append(f"{section}.plugin = {plugin.name}")
                missing += [
                    f"{section}.{key} of {plugin.name}"
                    for key in known_keys(plugin)
                    if f"`{section}.{key}`" not in told
                ]
        self.assertEqual(missing, [])


def known_keys(plugin: Any) -> list[str]:
    """The keys that a plugin knows, as it says when it is given another one."""
    section = {"no_such_key": 1}
    try:
        match plugin:
            case _ if ILocationStoreProvider.providedBy(plugin):
                plugin.configure(section, "nowhere", reactor)
            case _ if IWaitingStoreProvider.providedBy(plugin):
                plugin.configure(section, "nowhere")
            case _ if ICacheStorageProvider.providedBy(plugin):
                plugin.configure(section, "nowhere", Quotas(), reactor)
            case _ if IAccountStoreProvider.providedBy(plugin):
                plugin.open({"path": "x", **section}, Path("nowhere"), make=False)
            case _:
                plugin.configure(section, reactor)
    except ConfigurationError as problem:
        listed = re.search(r"known(?: here)?: (.*)", str(problem))
        assert listed is not None, str(problem)
        return [key for key in listed[1].split(", ") if key and key != "none"]
    raise AssertionError(f"{plugin.name} takes any key")


class SignallingTests(SynchronousTestCase):
    """The examples of the page on signalling are what is spoken."""

    def vector(self, name: str) -> bytes:
        """An example of the page, by the name that stands before it."""
        page = (DOCS / "protocol" / "signalling.md").read_text(encoding="utf-8")
        found = re.search(rf"^<!-- vector: {name} -->\n```text\n(.*?)^```$", page, re.M | re.S)
        assert found is not None
        return bytes.fromhex(found[1])

    def test_start(self) -> None:
        """Hello and welcome."""
        index, key = bytes(range(0xD1, 0xD9)), bytes(range(32))
        client, coordinator = bytes(range(16)), bytes(range(16, 32))
        self.assertEqual(self.vector("hello"), hello(index, key, client))
        self.assertEqual(self.vector("welcome"), welcome(index, key, client, coordinator))

    def test_sealed(self) -> None:
        """An envelope, sealed with the keys of that start."""
        client, coordinator = bytes(range(16)), bytes(range(16, 32))
        keys = Keys.of(bytes(range(32)), client, coordinator, is_client=False)
        envelope = keys.open(self.vector("sealed"))
        self.assertEqual(envelope, self.vector("envelope"))
        self.assertEqual(decode(envelope[5:]), KeepAlive(1_790_000_000_123, 25))


class CommandTests(SynchronousTestCase):
    """Commands and links of the README and of the documents."""

    def test_commands(self) -> None:
        """Every ``ntm`` command in code exists, with all the options that it is given."""
        found = list(commands())
        self.assertGreater(len(found), 100)
        wrong = [f"{file}: ntm {text}" for file, text in found if not is_command(text)]
        self.assertEqual(wrong, [])

    def test_links(self) -> None:
        """The README leads to files that exist."""
        links = re.findall(r"\]\(([^):#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
        self.assertGreater(len(links), 8)
        self.assertEqual([link for link in links if not (ROOT / link).exists()], [])


def commands() -> Iterator[tuple[str, str]]:
    """What follows ``ntm`` in code, on the command line only, with the file where it stands."""
    for file in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```(?:console|text)?\n(.*?)^```$", text, re.M | re.S)
        indented = re.findall(r"^    (?=\S).*$", text, re.M)
        for code in [*re.findall(r"`([^`\n]+)`", text), *blocks, *indented]:
            for command in re.findall(
                r"(?:^|[\s(;&|=])ntm (?![a-z]+:)([a-z][^\n#;&|<>)`]*)", code, re.M
            ):
                yield file.name, command


def is_command(text: str) -> bool:
    """Whether the words are a command of ``ntm``, and its options are known to it."""
    command: click.Command | None = main
    context = click.Context(main)
    words = shlex.split(text.replace("'", " "))
    while isinstance(command, click.Group) and words:
        command = command.get_command(context, words.pop(0))
    if command is None:
        return False
    names = {name for parameter in command.params for name in parameter.opts}
    own = words[: words.index("--")] if "--" in words else words
    options = [word for word in own if word.startswith("-") and word != "-"]
    return all(word in {*names, "--help"} for word in options)


class RuleTests(SynchronousTestCase):
    """Every rule is kept by tests, and the table says by which and where."""

    def test_cited(self) -> None:
        """Each rule is named in the docstring of at least one test."""
        cited = {rule for text in docstrings() for rule in re.findall(r"\bR\d+\b", text)}
        self.assertEqual([rule for rule in RULES if rule not in cited], [])

    def test_table(self) -> None:
        """Each rule has a row, whose modules and test modules exist."""
        page = (DOCS / "security" / "rules.md").read_text(encoding="utf-8")
        rows = dict(re.findall(r"^\| (R\d+) \|(.*)\|$", page, re.M))
        self.assertEqual([rule for rule in RULES if rule not in rows], [])
        named = set(re.findall(r"`((?:ntmobile|tests)/[^`]*\.py)`", page))
        self.assertEqual([name for name in sorted(named) if not (ROOT / name).exists()], [])

    def test_tests_of_the_table(self) -> None:
        """The tests that a row names exist, and cite that rule."""
        page = (DOCS / "security" / "rules.md").read_text(encoding="utf-8")
        wrong = []
        for rule, row in re.findall(r"^\| (R\d+) \|(.*)\|$", page, re.M):
            for file, named in re.findall(r"`(tests/[^`]*\.py)` \(([^)]*)\)", row):
                citing = tests_citing(ROOT / file, rule)
                wrong += [
                    f"{rule}: {file}: {name}" for name in named.split(", ") if name not in citing
                ]
        self.assertEqual(wrong, [])


def tests_citing(file: Path, rule: str) -> set[str]:
    """The tests in a file that name a rule in their docstrings, without the prefix ``test_``."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name.removeprefix("test_")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and re.search(rf"\b{rule}\b", ast.get_docstring(node) or "")
    }


@cache
def docstrings() -> list[str]:
    """The docstrings of all test modules, their classes and functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        ast.get_docstring(node) or ""
        for file in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    ]


class TroubleshootingTests(SynchronousTestCase):
    """Lines that the page on troubleshooting shows are lines that the product prints."""

    def test_lines(self) -> None:
        """Each line in a block ``text`` is made of a text in the sources, with ``...`` in it."""
        page = (DOCS / "operations" / "troubleshooting.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)
        lines = [line for block in blocks for line in block.splitlines()]
        self.assertGreater(len(lines), 20)
        said = [_PREFIX.sub("", line) for line in lines]
        wrong = [line for line in said if not any(one.fullmatch(line) for one in printed())]
        self.assertEqual(wrong, [])


#: What commands and services put before a line.
_PREFIX = re.compile(r"^(Error: |ntm exec: |ntm-[a-z]+: |[a-z_]+: (?:WARN|ERROR) )+")
_FIELD = re.compile(r"\{[^{}]*\}")


@cache
def printed() -> list[re.Pattern[str]]:
    """Patterns of all texts in the package, long enough to say something."""
    found = []
    for file in Path(ntmobile.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = list(_parts(node))
            if sum(map(len, parts)) >= 12:
                # A text may stand after a name and a colon, and before what to do.
                text = ".+".join(map(re.escape, parts))
                found.append(re.compile(f"(?:.+: )?{text}(?:; .+| \\(.+\\))?"))
    return found


def _parts(node: ast.AST) -> Iterator[str]:
    """The constant parts of a text, between what is put in."""
    if isinstance(node, ast.JoinedStr):
        text = ""
        for value in node.values:
            if isinstance(value, ast.Constant):
                text += str(value.value)
            else:
                yield text
                text = ""
        yield text
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from _FIELD.split(node.value)
