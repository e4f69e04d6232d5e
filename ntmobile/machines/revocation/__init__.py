"""Who still has to hear that a device or user is revoked (R34)."""

from __future__ import annotations
