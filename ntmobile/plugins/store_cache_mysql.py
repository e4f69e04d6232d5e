"""The ``mysql`` storage of a cache server: all of it in a MySQL or MariaDB database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.internet.interfaces import IReactorFromThreads
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.interfaces import ICacheStorageProvider, Quotas
from ntmobile.plugins.caches.mysql import Account, MySQLDatabase, RowBlobs
from ntmobile.plugins.caches.storage import PoolThreads, RecordStorage
from ntmobile.plugins.section import Section


@implementer(IPlugin, ICacheStorageProvider)
class MySQLProvider:
    """Makes the storage in a database, which belongs to one cache server alone."""

    name = "mysql"

    def configure(
        self, section: Mapping[str, object], directory: str, quotas: Quotas, reactor: object
    ) -> RecordStorage:
        """See :class:`~ntmobile.interfaces.ICacheStorageProvider`."""
        if not isinstance(section, Section):
            section = Section(Path(directory) / "(configuration)", "storage", section)
        authority = section.text("ca", "", expected="a path")
        account = Account(
            section.text("host", "localhost", expected="a host name or an address"),
            section.port("port", 3306),
            section.text("socket", "", expected="a path"),
            section.text("user", "ntm", expected="a name"),
            section.text("database", "ntm", expected="a name"),
            section.path("password_file", "mysql.password"),
            section.directory / authority if authority else None,
        )
        capacity = section.integer("capacity", 10 << 30, low=1, high=1 << 60)
        connections = section.integer("connections", 4, low=1, high=64)
        section.finish()
        database = MySQLDatabase(account)
        threads = PoolThreads(IReactorFromThreads(reactor), connections)
        return RecordStorage(database, RowBlobs(database), quotas, threads, capacity)


mysql_storage = MySQLProvider()
