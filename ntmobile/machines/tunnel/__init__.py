"""The tunnel of two devices: handshake, keys, paths, data plane (R15 to R26)."""

from __future__ import annotations
