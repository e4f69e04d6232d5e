"""BIND in a lab: the root, the realm's parent zone, and the resolver of everybody."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from ntmobile.lab.network import Server
from ntmobile.lab.process import Process
from ntmobile.lab.supervision import SEARCH_PATH, ProgramMissing

_CONFIGURATION = """
options {{
    directory "{directory}";
    pid-file none;
    session-keyfile none;
    lock-file none;
    listen-on port 53 {{ any; }};
    listen-on-v6 port 53 {{ any; }};
    recursion yes;
    allow-query {{ any; }};
    allow-recursion {{ any; }};
    dnssec-validation no;
    empty-zones-enable no;
    qname-minimization strict;
    max-cache-size 8m;
}};
controls {{ }};
zone "." {{ type primary; file "root.zone"; }};
zone "{realm}" {{ type primary; file "realm.zone"; }};
"""

_ROOT = """$TTL 300
. IN SOA a.root. root.root. 1 3600 600 86400 5
. IN NS a.root.
a.root. IN A {ipv4}
a.root. IN AAAA {ipv6}
{realm}. IN NS ns.{realm}.
ns.{realm}. IN A {ipv4}
ns.{realm}. IN AAAA {ipv6}
"""

_PARENT = """$TTL 300
@ IN SOA ns root 1 3600 600 86400 5
@ IN NS ns
ns IN A {ipv4}
ns IN AAAA {ipv6}
"""

_DELEGATION = """{label} IN NS ns.{label}
ns.{label} IN A {ipv4}
ns.{label} IN AAAA {ipv6}
"""


async def start_bind(host: Server, realm: str, coordinators: Mapping[str, Server]) -> Process:
    """Start BIND on a host; ``coordinators``: the label of a domain below ``realm`` → its host."""
    installed = shutil.which("named", path=SEARCH_PATH)
    if installed is None:
        raise ProgramMissing("the lab's resolver needs the command named (Debian package bind9)")
    directory = host.home / "bind"
    directory.mkdir(mode=0o700)
    own = {"realm": realm, "ipv4": host.ipv4, "ipv6": host.ipv6}
    parts = [
        _DELEGATION.format(label=label, ipv4=dc.ipv4, ipv6=dc.ipv6)
        for label, dc in coordinators.items()
    ]
    (directory / "root.zone").write_text(_ROOT.format(**own))
    (directory / "realm.zone").write_text(_PARENT.format(**own) + "".join(parts))
    configuration = directory / "named.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, realm=realm))
    # A copy: AppArmor ties the installed one, by its path, to the system's directories.
    program = shutil.copy(installed, directory / "named")
    argv = [str(program), "-g", "-n", "1", "-c", str(configuration)]
    named = await host.spawn(argv, name="named", standing=True)
    await named.wait_for("running$")
    return named
