"""The machine and the versions that a benchmark was measured on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path


def cpu_model(text: str) -> str:
    """The name of the processor in ``/proc/cpuinfo``."""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def describe() -> dict[str, str]:
    """What there is to say, by name."""
    try:
        processor = cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        memory = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        processor, memory = platform.machine(), ""
    size = re.search(r"MemTotal:\s+(\d+) kB", memory)
    cores = len(os.sched_getaffinity(0))
    found = {
        "CPU": f"{processor}, {cores} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "ntmobile": version("ntmobile") if _installed() else "source tree",
        "Twisted": version("Twisted"),
        "cryptography": version("cryptography"),
    }
    if size:
        found["memory"] = f"{int(size[1]) / (1 << 20):.0f} GiB"
    found["load before"] = f"{os.getloadavg()[0]:.2f}"
    return found


def _installed() -> bool:
    try:
        version("ntmobile")
    except ModuleNotFoundError:
        return False
    return True
