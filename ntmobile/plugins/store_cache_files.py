"""The ``files`` storage of a cache server, the default: records in SQLite, parts in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.internet.interfaces import IReactorFromThreads
from twisted.plugin import IPlugin
from zope.interface import implementer

from ntmobile.interfaces import ICacheStorageProvider, Quotas
from ntmobile.plugins.caches.files import FileBlobs
from ntmobile.plugins.caches.sqlite import SQLiteDatabase
from ntmobile.plugins.caches.storage import PoolThreads, RecordStorage
from ntmobile.plugins.section import Section


@implementer(IPlugin, ICacheStorageProvider)
class FilesProvider:
    """Makes the storage in a directory. Keys: ``path``, ``capacity``, ``keep_free``."""

    name = "files"

    def configure(
        self, section: Mapping[str, object], directory: str, quotas: Quotas, reactor: object
    ) -> RecordStorage:
        """See :class:`~ntmobile.interfaces.ICacheStorageProvider`."""
        if not isinstance(section, Section):
            section = Section(Path(directory) / "(configuration)", "storage", section)
        path = Path(directory) / section.text("path", "cache", expected="a path")
        capacity = section.integer("capacity", 0, low=0, high=1 << 60)
        keep_free = section.integer("keep_free", 256 << 20, low=0, high=1 << 60)
        section.finish()
        return RecordStorage(
            SQLiteDatabase(path / "records.sqlite"),
            FileBlobs(path, keep_free),
            quotas,
            PoolThreads(IReactorFromThreads(reactor), 4),
            capacity,
        )


files_storage = FilesProvider()
