"""Directions at a DC: the route decision, and who is told what (R13 to R18; paper, III)."""

from __future__ import annotations
