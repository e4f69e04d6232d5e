"""Entering the virtual network, for ``ntm exec``: the process becomes the program, inside."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NoReturn

from ntmobile.errors import NotPermittedHere, NTMobileError
from ntmobile.plugins import linux
from ntmobile.plugins.netns import namespaces
from ntmobile.plugins.netns.channel import Channel


class CommandNotRun(NTMobileError):
    """The program given to ``ntm exec`` cannot be run.

    :ivar status: what a shell would exit with: 127 if there is no such program, else 126.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def enter(state: Path, argv: list[str]) -> NoReturn:
    """Replace this process by the program ``argv``, inside the virtual network of ``state``.

    The program keeps the standard streams, directory, environment, process number, terminal and
    identity of this process, so signals and the exit status pass through by themselves. It has no
    capability, as any program of an ordinary user (root's has root's, in these namespaces).

    To be called before any thread starts.

    :raises NotRegistered: no virtual network runs there.
    :raises NotPermittedHere: the namespaces may not be joined from here.
    :raises CommandNotRun: there is no such program, or it cannot be run.
    """
    join(state)
    # Python ignores these; programs expect them to end them.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as problem:
        if not _exists(argv[0]):
            raise CommandNotRun(f"{argv[0]}: command not found", 127) from problem
        raise CommandNotRun(f"{argv[0]}: cannot be run: {problem.strerror}", 126) from problem


def _exists(command: str) -> bool:
    """Say whether there is such a file: a directory of PATH that one may not enter is no answer."""
    if os.path.dirname(command):
        return os.path.lexists(command)
    return any(os.path.lexists(os.path.join(place, command)) for place in os.get_exec_path())


def join(state: Path) -> None:
    """Move this process, which must have no threads, into the virtual network of ``state``."""
    channel = Channel.connect(state)
    try:
        _, descriptors = channel.request("enter")
    finally:
        channel.close()
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    path = _working_directory()
    try:
        namespaces.join(descriptors)
    except OSError as problem:
        raise NotPermittedHere(
            f"the virtual network of {state} cannot be joined: {problem.strerror}; "
            "run it as the account that runs the agent, and not in a container of its own"
        ) from problem
    if os.geteuid() != 0:
        linux.drop_capabilities()
    try:
        os.chdir(path or directory)
    except OSError:
        os.fchdir(directory)  # deleted meanwhile, or mounted for this process alone
    os.close(directory)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None
