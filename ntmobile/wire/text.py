"""Text that comes from a peer, for people."""

from __future__ import annotations


def printable(text: str) -> str:
    """A peer's text for a terminal: one line without control characters."""
    return "".join(char if char.isprintable() else "?" for char in text)
