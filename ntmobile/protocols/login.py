"""Login: the desk at a DC and the client that comes to it (rules R2, R3; paper, V-A)."""

from __future__ import annotations

from ntmobile.protocols.login_client import Answer as Answer
from ntmobile.protocols.login_client import LoginClient as LoginClient
from ntmobile.protocols.login_desk import LoginDesk as LoginDesk
