"""The numbers of the tunnel in one table: seconds, counts and sizes, each with its source.

``R`` means a rule of the protocol. What no rule fixes is ours to tune and says so.
"""

from __future__ import annotations

from typing import Final

#: No time at all.
NEVER: Final = float("inf")

# Handshake (R19)

#: Smallest datagram of message 1; the largest message 2 has 97 bytes (R8).
REQUEST_SIZE: Final = 112
#: Version of the tunnel's protocol, in prologue and payloads.
VERSION: Final = 1
#: First retransmission of handshake message 1; doubles each time (as R10).
HANDSHAKE_RETRY: Final = 0.1
#: Longest wait between retransmissions through a relay (ours).
HANDSHAKE_RETRY_LIMIT: Final = 2.0
#: A relay that is not first is used when no direct answer came by then (design, section 5).
DIRECT_HEAD_START: Final = 0.3
#: Longest life of a temporal key, whatever the direction says (R18).
DIRECTION_LIFETIME: Final = 60.0
#: The initiator of the losing one of two crossed directions waits so long for the other (ours).
CROSSING_PATIENCE: Final = 1.0

# Keys (R19, R20)

#: A replaced epoch or session still opens what comes late (R19).
EPOCH_OVERLAP: Final = 10.0
#: Use of one epoch after which the session's initiator makes the next (R20).
REKEY_AFTER: Final = 120.0
#: The other side does it if the initiator has not by so much later (ours).
REKEY_GRACE: Final = 15.0
#: Datagrams under one epoch after which the next is made (R20).
REKEY_DATAGRAMS: Final = 1 << 28
#: First retransmission of a rekeying request; doubles up to the limit (ours).
REKEY_RETRY: Final = 0.2
REKEY_RETRY_LIMIT: Final = 5.0
#: Age of a session at which certificates are to be shown again (R20).
SESSION_LIFETIME: Final = 24 * 3600.0
#: So long before a session's end a fresh direction is asked for (ours).
RENEWAL_MARGIN: Final = 600.0

# Paths (R17, R21, R23)

#: Candidates taken from one direction or offer (R17).
CANDIDATES: Final = 4
#: Datagrams sent unasked to a candidate that never answered, handshake included (R17).
PROBES: Final = 5
#: Probes of a path that did answer before, until it counts as failed (ours).
REPROBES: Final = 6
#: First wait between probes of one path; doubles (as R10).
PROBE_RETRY: Final = 0.1
#: Longest wait between probes (ours).
PROBE_RETRY_LIMIT: Final = 1.6
#: Rounds of challenges in which a path's MTU is searched, or found to hold no more (R23; ours).
MTU_ATTEMPTS: Final = 3
#: A path that carries less than it might is tried again after so long (ours).
MTU_INTERVAL: Final = 60.0
#: What a path carries is verified so often while large packets go over it (ours).
MTU_VERIFY: Final = 1.0
#: A path that failed is not preferred to a working one for so long; doubles up to the limit (ours).
SHUN: Final = 1.0
SHUN_LIMIT: Final = 60.0
#: A path that once worked and failed is tried this often while the tunnel has no other (ours).
REVIVAL: Final = 5.0
#: The same while the tunnel has another path that works (ours).
RECOVERY: Final = 30.0
#: Bytes sent to a nominated address before it proved itself, per byte received from it (R21).
AMPLIFICATION: Final = 3
#: Bytes sent on a second path too while the active one is in doubt (ours).
TRIAL: Final = 65536
#: Unproven addresses remembered because authentic datagrams came from them (ours).
NOMINATIONS: Final = 4
#: Directions whose paths are kept beside the active one (ours).
DIRECTIONS: Final = 4
#: Directions held at all, fresh ones included (ours).
DIRECTION_LIMIT: Final = 12
#: A valid path of the same kind takes over when its round trip is so much shorter (ours).
BETTER_RATIO: Final = 0.8
BETTER_SECONDS: Final = 0.010
#: After its own choice the controlling side takes late datagrams for no nomination (ours).
SETTLE: Final = 0.5

# Liveness

#: Data was received and nothing sent: a keep-alive answers (WireGuard, KEEPALIVE_TIMEOUT).
PASSIVE_KEEPALIVE: Final = 10.0
#: Data was sent and nothing came for so long: the active path is probed (ours).
SILENCE: Final = 1.0
#: NAT bindings of the active path and of relay legs are refreshed so often (15 to 25 s).
KEEPALIVE: Final = 20.0
#: A tunnel without inner packets for so long ends (design, section 5: idle tunnels end).
IDLE: Final = 300.0
#: Directions are asked for again after this, doubling up to the limit (ours).
WANT_RETRY: Final = 1.0
WANT_RETRY_LIMIT: Final = 30.0
#: Unauthenticated hints are sent, and believed, at most this often (R8, R15).
HINT_INTERVAL: Final = 1.0
#: A hint stands when nothing authentic comes within this time of a probe (ours).
HINT_CHECK: Final = 0.5

# Relay legs (R25, R26)

#: First retransmission of a bind or an unanswered keep-alive; doubles (as R10).
BIND_RETRY: Final = 0.1
BIND_RETRY_LIMIT: Final = 2.0
#: Missed answers in a row after which another relay is wanted: keep-alives of a bound leg (R26),
#: and binds, whose answers are waited for less long (1.5 s together).
MISSED_ANSWERS: Final = 3
BIND_ATTEMPTS: Final = 4

# Sizes (R23)

#: The least MTU of IPv6, and so of the virtual network.
INNER_MTU: Final = 1280
#: UDP payload that fits an outer IPv6 path of 1280 bytes.
NARROW_PAYLOAD: Final = 1232
#: Bytes of the header and tag around an inner packet.
SEALED: Final = 20 + 16
#: The largest inner packet that fits where nothing is known of a path.
NARROW_MTU: Final = NARROW_PAYLOAD - SEALED
#: Inner packets queued until there is a session (ours).
QUEUE: Final = 64
