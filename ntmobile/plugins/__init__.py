"""Providers of the interfaces in :mod:`ntmobile.interfaces`, found with twisted.plugin."""
