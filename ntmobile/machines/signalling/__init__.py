"""A client and its DC: sessions, requests, registration, and getting word to it (R7 to R10)."""

from __future__ import annotations
