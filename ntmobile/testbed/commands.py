"""How programs in a lab are told to run ours: with the interpreter and the package of the tests."""

from __future__ import annotations

import sys

#: The ``ntm`` command; also where it is not installed and the tests use the source tree.
NTM = [sys.executable, "-c", "from ntmobile.commands.main import main; main(prog_name='ntm')"]

#: ``twistd -n``.
TWISTD = [
    sys.executable,
    "-c",
    "from twisted.scripts.twistd import run; run()",
    "--nodaemon",
    "--pidfile=",
]
