"""Logins: their proofs, how a DC relays them, attempts, and who devices are (R2 to R6, R12)."""

from __future__ import annotations
