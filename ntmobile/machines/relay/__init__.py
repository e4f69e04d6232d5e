"""The relay server: binding of legs, and forwarding between them (R25 to R27)."""

from __future__ import annotations
