"""Why a system forbids namespaces or TUN devices, in one line with what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_ALTERNATIVE: Final = (
    'or set attachment.plugin = "tun" (with CAP_NET_ADMIN) or "datagram" (UDP inside the program) '
    "in node.toml"
)

#: Settings that forbid namespaces: path, the forbidding value, what to do about it.
_SETTINGS: Final = (
    (
        "proc/sys/user/max_user_namespaces",
        "0",
        "user.max_user_namespaces is 0; set it with sysctl, for example to 1000",
    ),
    (
        "proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "kernel.unprivileged_userns_clone is 0; set it to 1 with sysctl",
    ),
    (
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns is 1; set it to 0 with sysctl",
    ),
)


def explain(problem: OSError, step: str, root: Path = Path("/")) -> str:
    """Say in one line what forbids the virtual network and what to do.

    :param step: what was tried, such as ``"a user namespace"``.
    :param root: where ``proc`` is, for tests.
    """
    return f"{step} is not permitted here: {_cause(problem, root)}; {_ALTERNATIVE}"


def _cause(problem: OSError, root: Path) -> str:
    if problem.filename == "/dev/net/tun":
        if isinstance(problem, FileNotFoundError):
            return "there is no /dev/net/tun (load the module tun, or give it to this container)"
        return f"/dev/net/tun cannot be opened ({problem.strerror}); its mode should be 0666"
    if problem.filename is None:  # namespaces, not mounts
        for path, forbidding, cause in _SETTINGS:
            try:
                value = (root / path).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if value == forbidding:
                return cause
    where = f": {problem.filename}" if problem.filename else ""
    return (
        f"{problem.strerror}{where} (a container, a seccomp filter or a security module forbids it)"
    )
