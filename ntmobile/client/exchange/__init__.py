"""Stored data, the client's side: send, inbox, fetch, confirm (paper, IV and V-B; R28 to R32)."""

from __future__ import annotations

from ntmobile.client.exchange.asking import Session
from ntmobile.client.exchange.exchange import Exchange
from ntmobile.client.exchange.items import (
    Arrived,
    Delivered,
    Failed,
    Item,
    Outgoing,
    Status,
    Stored,
    Uploading,
)
from ntmobile.client.exchange.store import ExchangeStore

__all__ = [
    "Arrived",
    "Delivered",
    "Exchange",
    "ExchangeStore",
    "Failed",
    "Item",
    "Outgoing",
    "Session",
    "Status",
    "Stored",
    "Uploading",
]
