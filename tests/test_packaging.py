"""The wheel as its users get it: installed, found by twistd, and gone without a trace."""

from __future__ import annotations

import ast
import atexit
import functools
import os
import pickle
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from email import message_from_bytes
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ntmobile import __version__

ROOT = Path(__file__).resolve().parent.parent
SITE = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")

#: What goes into a build; beside these lie caches and earlier builds, which must not.
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
TREES = ("ntmobile", "twisted")
RUBBISH = shutil.ignore_patterns("__pycache__", "*.pyc", "dropin.cache")

#: As pyproject.toml asks of a build.
SETUPTOOLS = 77

SERVICES = {"ntm-as", "ntm-cache", "ntm-dc", "ntm-relay", "ntm-client"}

#: Seconds a single command may take; a build takes about five.
PATIENCE = 120.0


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end and return its output; another status than 0 is an error.

    It gets nothing of the environment that leads Python elsewhere: trial's workers have their
    whole path in PYTHONPATH.
    """
    environment = {key: value for key, value in os.environ.items() if key[:6] != "PYTHON"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    """Run the pip that is installed here, without its configuration and without a network."""
    quiet = ("--isolated", "--quiet", "--disable-pip-version-check", "--no-input")
    run(sys.executable, "-m", "pip", *quiet, *arguments, cwd=cwd)


@functools.cache
def built_wheel() -> Path:
    """Build the wheel, once a process, from a clean copy of the tree."""
    if not (ROOT / "setup.py").exists():
        raise SkipTest("setup.py is not beside the tests: there is nothing to build from")
    for module in ("pip", "setuptools"):
        if find_spec(module) is None:
            raise SkipTest(f"{module} is not installed here: a wheel cannot be built")
    if int(version("setuptools").partition(".")[0]) < SETUPTOOLS:
        raise SkipTest(f"setuptools here is older than {SETUPTOOLS}: it cannot build the wheel")
    directory = Path(tempfile.mkdtemp(prefix="ntmobile-wheel-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    source = directory / "source"
    source.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    for name in TREES:
        shutil.copytree(ROOT / name, source / name, ignore=RUBBISH)
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    pip("wheel", *offline, "--wheel-dir", directory, source, cwd=directory)
    [wheel] = directory.glob("*.whl")
    return wheel


def populate(site: Path, *, own_twisted: bool) -> None:
    """Give an empty site-packages what ours needs: links to what is installed here, no download.

    :param own_twisted: Twisted is a real copy in it, and our plugins are put beside Twisted's own;
        else it lies in another directory, and they have ``twisted/plugins`` to themselves.
    """
    elsewhere = site.parent / "elsewhere"
    elsewhere.mkdir()
    (site / "elsewhere.pth").write_text(f"{elsewhere}\n")
    for where in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(where).iterdir():
            if entry.name == "twisted":
                destination = (site if own_twisted else elsewhere) / entry.name
                unwanted = ("test", "__pycache__", "dropin.cache", "ntmobile_*")
                shutil.copytree(entry, destination, ignore=shutil.ignore_patterns(*unwanted))
            elif entry.suffix != ".pth" and not entry.name.startswith(("ntmobile", "__")):
                (site / entry.name).symlink_to(entry)


class Installation:
    """A virtual environment with the wheel in it."""

    def __init__(self, at: Path, *, own_twisted: bool) -> None:
        self.at = at
        wheel = built_wheel()
        venv.create(at, symlinks=True)
        populate(at / SITE, own_twisted=own_twisted)
        self.before = self.files()
        self.python = at / "bin" / "python"
        # With its dependencies: an unmet one is an error, for there is no index.
        pip("--python", self.python, "install", "--no-index", wheel, cwd=at)

    def uninstall(self) -> None:
        """Remove ntmobile as a user would."""
        pip("--python", self.python, "uninstall", "--yes", "ntmobile", cwd=self.at)

    def files(self) -> set[Path]:
        """List the files of the environment, what links lead to not included."""
        return {path for path in self.at.rglob("*") if not path.is_dir()}

    def left_over(self) -> set[str]:
        """Name the files that came since, without Python's caches of other packages."""
        new = (path.relative_to(self.at) for path in self.files() - self.before)
        return {
            str(path)
            for path in new
            if "__pycache__" not in path.parts or path.name.startswith("ntmobile")
        }

    def caches(self) -> set[Path]:
        """Find the caches of twisted.plugin."""
        return set(self.at.rglob("dropin.cache"))

    def twistd(self, *arguments: str) -> str:
        """Run twistd as a user does, outside any source tree, and return what it prints."""
        program = "from twisted.scripts.twistd import run; run()"
        return run(self.python, "-c", program, *arguments, cwd=self.at)

    def services(self) -> set[str]:
        """Give our services among those that twistd lists; a traceback in the list is an error."""
        text = self.twistd("--help")
        if "Traceback" in text:
            raise AssertionError(text)
        lines = (line.split() for line in text.splitlines())
        return {words[0] for words in lines if words and words[0].startswith("ntm-")}


def canonical(distribution: str) -> str:
    """Spell the name of a distribution as all its spellings compare (PEP 503)."""
    return re.sub("[-_.]+", "-", distribution).lower()


def top_level_imports(path: Path) -> set[str]:
    """Name the top-level modules that a file imports, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


class WheelTests(SynchronousTestCase):
    """What is in the wheel."""

    def test_contents(self) -> None:
        """The wheel has all our modules, the plugins, the licence and the type marker, no more."""
        names = {
            name
            for name in zipfile.ZipFile(built_wheel()).namelist()
            if not name.startswith(f"ntmobile-{__version__}.dist-info/")
        }
        modules = {
            str(path.relative_to(ROOT))
            for place in ("ntmobile", "twisted/plugins")
            for path in (ROOT / place).rglob("*.py")
        }
        self.assertEqual(modules | {"ntmobile/py.typed"}, names)

    def test_plugins_are_no_package(self) -> None:
        """No ``__init__.py`` of ours makes twisted or twisted.plugins a package of its own."""
        self.assertEqual([], list((ROOT / "twisted").rglob("__init__.py")))

    def test_endpoints_are_registered(self) -> None:
        """Twisted programs find our endpoints: their module and their plugin file come together."""
        self.assertEqual(
            (ROOT / "ntmobile" / "client" / "endpoints.py").exists(),
            (ROOT / "twisted" / "plugins" / "ntmobile_endpoints.py").exists(),
        )

    def test_dependencies_are_declared(self) -> None:
        """Whatever our modules import comes with Python, with us, or with a declared dependency."""
        with zipfile.ZipFile(built_wheel()) as wheel:
            [name] = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            declared = {
                canonical(re.split("[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
                for requirement in message_from_bytes(wheel.read(name)).get_all("Requires-Dist", [])
            }
        providers = packages_distributions()
        undeclared = {
            f"{path.relative_to(ROOT)} imports {module}"
            for place in TREES
            for path in (ROOT / place).rglob("*.py")
            for module in top_level_imports(path)
            if module not in sys.stdlib_module_names
            and module != "ntmobile"
            and declared.isdisjoint(map(canonical, providers.get(module, ())))
        }
        self.assertEqual(set(), undeclared)


class InstallationTests(SynchronousTestCase):
    """What a user sees after ``pip install`` and after ``pip uninstall``."""

    def install(self, *, own_twisted: bool) -> Installation:
        """Make an environment for one test."""
        directory = Path(tempfile.mkdtemp(prefix="ntmobile-environment-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return Installation(directory / "environment", own_twisted=own_twisted)

    def test_beside_twisted(self) -> None:
        """In Twisted's site-packages: twistd lists the services; uninstalling leaves no trace."""
        installed = self.install(own_twisted=True)
        self.assertEqual(SERVICES, installed.services())
        for service in sorted(SERVICES):
            self.assertIn("Options:", installed.twistd(service, "--help"))
        help_text = run(installed.at / "bin" / "ntm", "--help", cwd=installed.at)
        self.assertIn("Usage: ntm", help_text)
        version_text = run(installed.at / "bin" / "ntm", "--version", cwd=installed.at)
        self.assertEqual(f"ntm, version {__version__}", version_text.strip())

        installed.uninstall()

        self.assertEqual(set(), installed.services())
        [cache] = installed.caches()
        remembered = pickle.loads(cache.read_bytes())
        self.assertEqual([], [name for name in remembered if name.startswith("ntmobile")])
        self.assertEqual({str(cache.relative_to(installed.at))}, installed.left_over())

    def test_apart_from_twisted(self) -> None:
        """Where Twisted is elsewhere: the same, and a cache nobody may rewrite does no harm."""
        installed = self.install(own_twisted=False)
        self.assertEqual(SERVICES, installed.services())
        before = {cache: cache.read_bytes() for cache in installed.caches()}
        self.assertEqual(2, len(before))

        installed.uninstall()
        for cache, stale in before.items():
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_bytes(stale)
            cache.parent.chmod(0o555)
            self.addCleanup(cache.parent.chmod, 0o755)

        self.assertEqual(set(), installed.services())
        names = {str(cache.relative_to(installed.at)) for cache in before}
        self.assertEqual(names, installed.left_over())
