"""A lab and its nodes: places with a network of their own, in which programs run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from attrs import Factory, define, field
from twisted.internet.base import ReactorBase

from ntmobile.lab.namespaces import inside_identity
from ntmobile.lab.process import Completed, Process
from ntmobile.lab.supervision import ROOT, SEARCH_PATH, LabError, Supervision

N = TypeVar("N", bound="Node")

#: One command of the set-up: (node, argv, standard input).
Step = tuple[str, list[str], str]

_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


@define(eq=False)
class Lab:
    """One user namespace full of network namespaces; nothing of it is left after :meth:`close`.

    All its files (homes, logs) are below :attr:`directory`; set ``NTM_LAB_KEEP`` in the
    environment to keep them for a look afterwards.
    """

    reactor: ReactorBase
    directory: Path
    supervision: Supervision
    nodes: dict[str, Node] = field(factory=dict)
    processes: list[Process] = field(factory=list)
    closed: bool = False
    #: Leave the files where they are.
    keep: bool = field(factory=lambda: "NTM_LAB_KEEP" in os.environ)
    _numbers: int = 0

    @classmethod
    def start(cls, reactor: ReactorBase) -> Lab:
        """Start an empty lab; it is closed at the exit of the interpreter, if not before."""
        directory = Path(tempfile.mkdtemp(prefix="ntmlab-"))
        lab = cls(reactor, directory, Supervision.start(reactor, directory))
        atexit.register(lab.close)
        return lab

    def close(self) -> None:
        """End every program, take every network down, and remove the files."""
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        self.supervision.close()
        if not self.keep:
            remove_tree(self.directory)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def number(self) -> int:
        """Give the next number, for names that must differ within the lab."""
        self._numbers += 1
        return self._numbers

    async def add(self, kind: type[N], name: str) -> N:
        """Make a node with an empty network (``lo`` only)."""
        if name in self.nodes:
            raise LabError(f"the lab has a node {name} already")
        node = kind(self, name)
        await self.supervision.call("add_host", name=name, etc=node.prepare_files())
        await self.supervision.call("write", host=name, settings=node.settings())
        await self.configure((name, ["ip", "link", "set", "lo", "up"], ""))
        self.nodes[name] = node
        return node

    async def remove(self, node: Node) -> None:
        """Take a node down, with the programs in it."""
        for process in [process for process in self.processes if process.host == node.name]:
            if await process.status() is None:
                await process.kill()
            self.processes.remove(process)
        del self.nodes[node.name]
        await self.supervision.call("remove_host", name=node.name)

    async def configure(self, *steps: Step) -> str:
        """Run set-up commands with all capabilities, in order; gives their joined output."""
        output: str = await self.supervision.call("configure", steps=steps)
        return output


def remove_tree(directory: Path) -> None:
    """Remove a lab's files; refuse if anything is mounted below, which would be removed as well."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = Path(line.split()[4])
        if point == directory or directory in point.parents:
            raise LabError(f"{point} is mounted below {directory}: not removed, unmount it first")
    shutil.rmtree(directory, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Give programs the environment of the tests, which find what the tests would find."""
    environment = {**os.environ, "PATH": SEARCH_PATH, "PYTHONUNBUFFERED": "1"}
    for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "NTM_STATE"):
        environment.pop(name, None)
    if found := python_path():
        environment["PYTHONPATH"] = found
    return environment


def python_path() -> str:
    """Give the ``PYTHONPATH`` of programs in a lab; empty if they need none."""
    paths = [os.environ.get("PYTHONPATH", "")]
    if (ROOT / "ntmobile").is_dir() and _tests_use_source_tree():
        paths.insert(0, str(ROOT))
    return os.pathsep.join(filter(None, paths))


def _tests_use_source_tree() -> bool:
    """Say whether ``import ntmobile`` gives the source tree here, not an installed wheel."""
    import ntmobile

    return Path(ntmobile.__file__).resolve().parent.parent == ROOT


@define(eq=False)
class Node:
    """A network namespace with a host name, a home directory, and name service files of its own.

    Programs run as an ordinary user of the lab's user namespace (never uid 0) without any
    capability; ``privileged`` gives them all capabilities over the lab's networks.
    """

    lab: Lab = field(repr=False)
    name: str
    directory: Path = field(
        init=False, default=Factory(lambda self: self.lab.directory / self.name, takes_self=True)
    )

    @property
    def home(self) -> Path:
        """The home directory of the user in this node."""
        return self.directory / "home"

    def prepare_files(self) -> str:
        """Make this node's directories; gives that of the files it sees in its ``/etc``."""
        uid, gid = inside_identity()
        etc = self.directory / "etc"
        for directory in (self.directory, self.home, self.directory / "logs", etc):
            directory.mkdir(mode=0o700)
        passwd = f"root:x:0:0:root:/root:/bin/sh\nlab:x:{uid}:{gid}:lab:{self.home}:/bin/sh\n"
        files = {
            "passwd": passwd,
            "group": f"root:x:0:\nlab:x:{gid}:\n",
            "resolv.conf": "",
            "hosts": f"{_HOSTS}127.0.1.1 {self.name}\n",
            "nsswitch.conf": _NSSWITCH,
        }
        for name, text in files.items():
            (etc / name).write_text(text)
        return str(etc)

    def settings(self) -> list[tuple[str, str]]:
        """Give the kernel settings (path, text) that make tests exact: no waits, no surprises."""
        gid = inside_identity()[1]
        conf4, conf6 = "/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"
        return [
            ("/proc/sys/net/ipv4/ping_group_range", f"{gid} {gid}"),
            # All addresses are given; nothing is to be detected or advertised first.
            (f"{conf6}/all/accept_dad", "0"),
            (f"{conf6}/default/accept_dad", "0"),
            (f"{conf6}/all/accept_ra", "0"),
            (f"{conf6}/default/accept_ra", "0"),
            # A host that arrives says so, as DHCP clients do; else neighbours keep stale entries.
            (f"{conf4}/default/arp_notify", "1"),
            (f"{conf6}/default/ndisc_notify", "1"),
            (f"{conf4}/all/rp_filter", "0"),
            (f"{conf4}/default/rp_filter", "0"),
        ]

    def set_resolvers(self, addresses: list[str]) -> None:
        """Set the name servers of this node (its ``/etc/resolv.conf``)."""
        lines = [f"nameserver {address}\n" for address in addresses]
        (self.directory / "etc" / "resolv.conf").write_text(
            "".join([*lines, "options timeout:1 attempts:2\n"])
        )

    async def ip(self, *lines: str) -> str:
        """Run ``ip`` commands (without the word ``ip``) in one batch."""
        return await self.lab.configure(ip_step(self, *lines))

    async def nft(self, ruleset: str) -> None:
        """Load an nftables ruleset, beside what is loaded."""
        await self.lab.configure((self.name, ["nft", "-f", "-"], ruleset))

    async def spawn(
        self,
        argv: list[str],
        *,
        name: str | None = None,
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        input: str | None = None,
        privileged: bool = False,
        standing: bool = False,
    ) -> Process:
        """Start a program, in this node's home unless ``cwd`` says otherwise.

        Its environment is that of the tests, with ``env`` over it; ``twistd``, ``ntm`` and
        ``python`` are those that the tests run with. ``standing``: it is to outlive the test.
        """
        number = self.lab.number()
        name = name or os.path.basename(argv[0])
        base = self.directory / "logs" / f"{number:03}-{name}"
        stdin, stdout, stderr = (
            base.with_name(f"{base.name}.{end}") for end in ("in", "out", "err")
        )
        if input is not None:
            stdin.write_text(input)
        own = {"HOME": str(self.home), "USER": "lab", "LOGNAME": "lab", "HOSTNAME": self.name}
        started = await self.lab.supervision.call(
            "spawn",
            host=self.name,
            argv=argv,
            env={**_environment(), **own, **(env or {})},
            cwd=str(cwd or self.home),
            stdin="/dev/null" if input is None else str(stdin),
            stdout=str(stdout),
            stderr=str(stderr),
            privileged=privileged,
        )
        process = Process(
            self.name,
            name,
            argv,
            started["pid"],
            stdout,
            stderr,
            standing,
            number=started["number"],
            supervision=self.lab.supervision,
            reactor=self.lab.reactor,
        )
        self.lab.processes.append(process)
        return process

    async def run(
        self,
        argv: list[str],
        *,
        timeout: float = 10.0,
        check: bool = True,
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        input: str | None = None,
        privileged: bool = False,
    ) -> Completed:
        """Run a short program to its end; with ``check``, a status other than 0 is an error."""
        process = await self.spawn(argv, env=env, cwd=cwd, input=input, privileged=privileged)
        try:
            status = await process.exited(timeout)
        except LabError:
            await process.kill()
            raise
        if check and status != 0:
            raise LabError(f"exit status {status}\n{process.tail()}")
        if status == 0:
            self.lab.processes.remove(process)  # the caller has its words; failures need no others
        return Completed(status, process.output(), process.errors())


def ip_step(node: Node, *lines: str) -> Step:
    """Make the set-up command that runs ``ip`` lines in a node."""
    return (node.name, ["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))
