"""Every message of the system, declared once, by conversation (design section 5).

Importing this package registers all of them with :mod:`ntmobile.wire.codec`.
"""

from __future__ import annotations

from ntmobile.wire.messages import (
    account,
    coordination,
    exchange,
    realtime,
    relaying,
    tunnel,
)

__all__ = ["account", "coordination", "exchange", "realtime", "relaying", "tunnel"]
