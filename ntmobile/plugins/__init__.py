"""Providers of the interfaces in :mod:`ntmobile.interfaces`, found with :mod:`twisted.plugin`.

A plugin is a module-level object in a module of this package that provides ``IPlugin`` and one of
the provider interfaces, and has a ``name``. Other distributions add theirs by putting a module into
their own ``ntmobile/plugins`` directory (without ``__init__.py``) on ``sys.path``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from twisted.plugin import getPlugins, pluginPackagePaths
from zope.interface import Interface

from ntmobile.errors import ConfigurationError

__path__.extend(pluginPackagePaths(__name__))


def find(interface: type[Interface], name: str) -> Any:
    """The plugin called ``name`` among the providers of ``interface``.

    Annotate what you assign it to with the interface.

    :raises ConfigurationError: there is none, or there are two; the text lists the known names.
    """
    known: dict[str, list[Any]] = {}
    providers: Iterable[Any] = getPlugins(interface, sys.modules[__name__])
    for plugin in providers:
        known.setdefault(plugin.name, []).append(plugin)
    found = known.get(name, [])
    if len(found) == 1:
        return found[0]
    what = interface.__name__
    if found:
        raise ConfigurationError(f"{len(found)} plugins of {what} are called {name!r}; remove one")
    listed = ", ".join(sorted(known)) or "none"
    raise ConfigurationError(f"unknown plugin {name!r} for {what}; known: {listed}")
