"""What the storages of cache servers have in common: records in a database, parts as blobs.

:mod:`.storage` joins a :class:`~.database.Database` and :class:`~.blobs.Blobs` to an
``ICacheStorage``. A part is first written as a blob, under a name that was never used, and then
recorded; what is removed loses its record first. So at any moment each record has its blob, and a
blob without a record is rubbish, which is swept at start.
"""
