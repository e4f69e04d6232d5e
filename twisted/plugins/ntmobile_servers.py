"""What ``twistd`` runs: the servers and the client's agent."""

from __future__ import annotations

from twisted.application.service import ServiceMaker

# Each is imported only when it is run: this module is read by every twistd on the machine.
accountServer = ServiceMaker(
    "ntmobile account server",
    "ntmobile.servers.account_tap",
    "ntmobile account server (AS): the authentication data of a realm.",
    "ntm-as",
)

coordinator = ServiceMaker(
    "ntmobile direction coordinator",
    "ntmobile.servers.coordinator_tap",
    "ntmobile direction coordinator (DC): the clients of one domain.",
    "ntm-dc",
)

relay = ServiceMaker(
    "ntmobile relay server",
    "ntmobile.servers.relay_tap",
    "ntmobile relay server (RS): tunnels that cannot go directly.",
    "ntm-relay",
)

cache = ServiceMaker(
    "ntmobile cache server",
    "ntmobile.servers.cache_tap",
    "ntmobile cache server (CS): keys and data for devices that are off.",
    "ntm-cache",
)

client = ServiceMaker(
    "ntmobile client",
    "ntmobile.client.tap",
    "ntmobile client: the agent that `ntm up` runs.",
    "ntm-client",
)
