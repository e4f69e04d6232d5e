"""Where a device keeps its state (design section 7).

::

    DIR/            of mode 0700
    DIR/node.toml   account, device, coordinator, settings: made by ntm enroll, for people to edit
    DIR/device.pem  certificate and private keys, together so that they always belong together
    DIR/ca.pem      the realm's authority;  DIR/trust/SUFFIX.pem  those of foreign realms
    DIR/pins.db     the identities of correspondents
    DIR/known.json  the addresses that programs know correspondents by
    DIR/port        the UDP port of the last agent
    DIR/exchange.db keys and state of stored data
    DIR/outbox/     content that is being sent;  DIR/received/  items fetched without a file's name
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SETTINGS: Final = "node.toml"
DEVICE: Final = "device.pem"
#: Keys of an enrolment that was begun: a repeated attempt uses the same ones.
PENDING: Final = "pending.pem"
AUTHORITY: Final = "ca.pem"
TRUST: Final = "trust"
PINS: Final = "pins.db"
KNOWN: Final = "known.json"
PORT: Final = "port"
EXCHANGE: Final = "exchange.db"
OUTBOX: Final = "outbox"
RECEIVED: Final = "received"


def default_state(environment: Mapping[str, str] = os.environ) -> Path:
    """``$NTM_STATE``, else the platform's directory for a user's state."""
    if environment.get("NTM_STATE"):
        return Path(environment["NTM_STATE"])
    home = Path(environment.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "ntmobile"
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "ntmobile"
    base = environment.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(base) if base.startswith("/") else home / ".local" / "state") / "ntmobile"
