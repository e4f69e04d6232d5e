"""The shape of the source: layers, cycles, sizes, and that each test says what it holds."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

import ntmobile

PACKAGE = Path(ntmobile.__file__).resolve().parent
TESTS = Path(__file__).resolve().parent

LONGEST_FILE = 500

#: What the modules of a place may import of ntmobile, themselves included. A module or package is
#: governed by its longest prefix here; one without a row fails, so a new package needs a decision.
MAY_IMPORT = {
    "ntmobile": (),
    "ntmobile.errors": (),
    "ntmobile.interfaces": ("wire", "interfaces"),
    "ntmobile.wire": ("wire",),
    "ntmobile.machines": ("wire", "machines"),
    "ntmobile.protocols": ("wire", "machines", "protocols"),
    "ntmobile.plugins": ("wire", "machines", "protocols", "plugins"),
    "ntmobile.servers": ("wire", "machines", "protocols", "plugins", "servers"),
    "ntmobile.client": ("wire", "machines", "protocols", "plugins", "client"),
    "ntmobile.lab": ("lab",),
    "ntmobile.testbed": ("lab", "client", "testbed"),
    "ntmobile.bench": (
        "lab",
        "wire",
        "machines",
        "protocols",
        "plugins",
        "servers",
        "client",
        "testbed",
        "bench",
    ),
    "ntmobile.demo": ("lab", "wire", "protocols", "plugins", "servers", "client", "demo"),
    "ntmobile.commands": (
        "lab",
        "bench",
        "demo",
        "wire",
        "machines",
        "protocols",
        "plugins",
        "servers",
        "client",
        "commands",
    ),
    "ntmobile.testing": ("wire", "machines", "protocols", "plugins", "testing"),
}

#: Importable by all.
SEAMS = ("ntmobile", "ntmobile.errors", "ntmobile.interfaces")

#: Clocks, sockets and reactors, which wire and machines are given from outside.
AMBIENT = frozenset(
    {"twisted", "asyncio", "socket", "time", "random", "select", "threading", "ssl"}
)
SANS_IO = ("ntmobile.wire", "ntmobile.machines")


@frozen
class Import:
    """One import statement: who, where, and the module or name it asks for."""

    module: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def within(name: str, place: str) -> bool:
    """Tell whether a dotted name is a place or lies below it."""
    return name == place or name.startswith(place + ".")


def module_name(path: Path) -> str:
    """Give the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def targets(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the modules a statement imports; for ``from a import b``, ``a.b`` where that is one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        for alias in node.names:
            below = f"{base}.{alias.name}"
            yield below if below in FILES else base


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    """Collect what stands under ``if TYPE_CHECKING``: never run, so no cycle."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(*, of: Iterable[str] = (), at_run_time: bool = False) -> Iterator[Import]:
    """Yield the imports of the modules at the places named (all, if none is)."""
    places = tuple(of)
    for module, path in FILES.items():
        if places and not any(within(module, place) for place in places):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        skipped = type_checking_only(tree) if at_run_time else set()
        for node in ast.walk(tree):
            if node not in skipped:
                for target in targets(node, package):
                    yield Import(module, getattr(node, "lineno", 0), target)


def row_of(module: str) -> tuple[str, ...] | None:
    """Find the row of :data:`MAY_IMPORT` that governs a module."""
    for place in sorted(MAY_IMPORT, key=len, reverse=True):
        if module == place or (place != "ntmobile" and within(module, place)):
            return MAY_IMPORT[place]
    return None


class LayerTests(SynchronousTestCase):
    """Imports point downward only (design, section 3)."""

    def test_every_module_has_a_layer(self) -> None:
        """A module outside the known packages fails until its layer is decided here."""
        self.assertEqual([], [module for module in FILES if row_of(module) is None])

    def test_nothing_imports_upward(self) -> None:
        """Each module imports only its own layer, those below, and the seams."""
        wrong = []
        for found in imports():
            if not within(found.target, "ntmobile") or found.target in SEAMS:
                continue
            allowed = row_of(found.module) or ()
            if not any(within(found.target, f"ntmobile.{place}") for place in allowed):
                wrong.append(str(found))
        self.assertEqual([], wrong)

    def test_wire_and_machines_have_no_clock_socket_or_reactor(self) -> None:
        """The lowest layer gets time, randomness and datagrams as arguments."""
        wrong = [
            str(found) for found in imports(of=SANS_IO) if found.target.partition(".")[0] in AMBIENT
        ]
        self.assertEqual([], wrong)

    def test_wire_and_machines_load_no_twisted(self) -> None:
        """Nor do they get Twisted through what they import: none of it is loaded with them."""
        names = [name for name in FILES if any(within(name, place) for place in SANS_IO)]
        program = f"import sys, {', '.join(names)}; print(*(m for m in sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual("", done.stderr)
        self.assertEqual([], [name for name in done.stdout.split() if within(name, "twisted")])

    def test_the_interfaces_know_no_reactor(self) -> None:
        """Of Twisted, ``ntmobile.interfaces`` imports interfaces and Deferred, which are types."""
        types = ("twisted.internet.interfaces", "twisted.internet.defer")
        wrong = [
            str(found)
            for found in imports(of=["ntmobile.interfaces"], at_run_time=True)
            if within(found.target, "twisted") and found.target not in types
        ]
        self.assertEqual([], wrong)

    def test_nothing_uses_asyncio(self) -> None:
        """Twisted's is the only event loop."""
        wrong = [str(found) for found in imports() if within(found.target, "asyncio")]
        self.assertEqual([], wrong)

    def test_no_cycles(self) -> None:
        """No module imports itself through others."""
        graph: dict[str, set[str]] = {module: set() for module in FILES}
        for found in imports(at_run_time=True):
            if found.target in FILES and found.target != found.module:
                graph[found.module].add(found.target)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            self.fail(" imports ".join(reversed(error.args[1])))


class HouseRuleTests(SynchronousTestCase):
    """What a reader may rely on in every file."""

    def test_no_file_is_too_long(self) -> None:
        """A file holds one concept: 500 lines at most."""
        lengths = {
            str(path.relative_to(PACKAGE.parent)): len(path.read_text("utf-8").splitlines())
            for path in [*FILES.values(), *TESTS.rglob("*.py")]
        }
        self.assertEqual({}, {name: n for name, n in lengths.items() if n > LONGEST_FILE})

    def test_annotations_are_postponed(self) -> None:
        """Each module that defines something has ``from __future__ import annotations``."""
        wrong = []
        for module, path in FILES.items():
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            defines = any(
                isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                for node in tree.body
            )
            if defines and not any(
                isinstance(node, ast.ImportFrom) and node.module == "__future__"
                for node in tree.body
            ):
                wrong.append(module)
        self.assertEqual([], wrong)

    def test_every_test_says_its_behaviour(self) -> None:
        """A test method has a docstring, which trial shows and which states one behaviour."""
        wrong = [
            f"{path.name}:{node.lineno} {node.name}"
            for path in sorted(TESTS.rglob("test_*.py"))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            and not ast.get_docstring(node)
        ]
        self.assertEqual([], wrong)
