"""A device beside its tunnels: ways out, shown addresses, UDP inside a process."""

from __future__ import annotations
