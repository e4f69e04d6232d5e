"""Twisted protocols and factories, one module per conversation."""
