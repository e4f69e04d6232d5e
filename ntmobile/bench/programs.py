"""The peers' programs: Debian's, and current releases that a Go toolchain builds into a cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attrs import frozen

from ntmobile.bench.results import Say, Skipped, one_line
from ntmobile.lab.supervision import SEARCH_PATH

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ntmobile-bench"

#: Seconds that a build may take.
_PATIENCE = 900
#: Releases, newest first, that are tried: the newest may want a newer Go than there is.
_ATTEMPTS = 12


@frozen
class Source:
    """A module that ``go install`` builds.

    :ivar packages: below the module, "" for itself. :ivar tagged: it has releases; else its newest
        commit is built.
    """

    module: str
    packages: tuple[str, ...]
    tagged: bool = True


NEBULA = Source("github.com/slackhq/nebula", ("cmd/nebula", "cmd/nebula-cert"))
WIREGUARD = Source("golang.zx2c4.com/wireguard", ("",), tagged=False)
TAILSCALE = Source("tailscale.com", ("cmd/tailscaled", "cmd/tailscale", "cmd/testcontrol"))


def debian(program: str, package: str) -> Path:
    """Find a program of a Debian package."""
    found = shutil.which(program, path=SEARCH_PATH)
    if found is None:
        raise Skipped(f"{program} is not installed (Debian package {package})")
    return Path(found)


def debian_version(package: str) -> str:
    """The version of an installed package, or what is known instead."""
    try:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "version unknown"
    return done.stdout.strip()


def python_version(distribution: str) -> str:
    """The version of an installed Python distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        raise Skipped(f"the Python package {distribution} is not installed") from None


def _go(*words: str, patience: float = 60, env: dict[str, str] | None = None) -> str:
    """Run ``go``; what it says goes into the error if it fails."""
    paths = os.pathsep.join([SEARCH_PATH, "/usr/local/go/bin", "/usr/lib/go/bin"])
    program = shutil.which("go", path=paths)
    if program is None:
        raise Skipped("there is no Go toolchain")
    try:
        done = subprocess.run(
            [program, *words],
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
            cwd="/",
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"go {words[0]} took longer than {patience:.0f} s") from None
    if done.returncode != 0:
        raise BuildError(done.stderr.strip() or f"go {words[0]} failed")
    return done.stdout


class BuildError(Exception):
    """What ``go`` said."""


def releases(listed: str) -> list[str]:
    """The releases in the answer of ``go list -m -versions``, newest first; previews are none."""
    found = [word for word in listed.split()[1:] if re.fullmatch(r"v\d+\.\d+\.\d+", word)]
    return sorted(found, key=lambda word: [int(part) for part in word[1:].split(".")])[::-1]


def current(source: Source, say: Say) -> tuple[Path, str]:
    """Give the directory of a peer's current release, built unless it is in the cache; its version.

    The newest release that the toolchain here can build is taken.

    :raises Skipped: no toolchain, no network, or nothing could be built.
    """
    place = CACHE / source.module.replace("/", "_")
    mark = place / "version"
    if mark.exists():
        return place, mark.read_text().strip()
    place.mkdir(parents=True, exist_ok=True)
    try:
        versions = ["latest"]
        if source.tagged:
            versions = releases(_go("list", "-m", "-versions", source.module))[:_ATTEMPTS]
    except BuildError as problem:
        raise Skipped(f"no releases of {source.module}: {one_line(problem)}") from None
    why: Exception = BuildError("it has no releases")
    for release in versions:
        try:
            built = _install(source, release, place, say)
        except BuildError as problem:
            why = problem
            continue
        mark.write_text(built)
        return place, built
    raise Skipped(f"{source.module} could not be built: {one_line(why)}")


def _install(source: Source, release: str, place: Path, say: Say) -> str:
    """Build one release; give its version."""
    say(f"building {source.module} {release} (once) ...")
    names: Sequence[str] = [f"{source.module}/{name}".rstrip("/") for name in source.packages]
    _go(
        "install",
        *(f"{name}@{release}" for name in names),
        patience=_PATIENCE,
        env={"GOBIN": str(place)},
    )
    if release != "latest":
        return release
    said = _go("version", "-m", str(place / names[0].rpartition("/")[2]))
    found = re.search(rf"mod\s+{re.escape(source.module)}\s+(\S+)", said)
    return found[1] if found else release
