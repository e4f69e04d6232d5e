"""Files that must be whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.plugins.files import write_file


class WriteTests(SynchronousTestCase):
    """write_file."""

    def test_full_disk(self) -> None:
        """R6: the file of before stays, nothing else does, and the error names the file."""
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        file = directory / "root.key"
        write_file(file, b"before")

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "fsync", full)
        error = self.assertRaises(OSError, write_file, file, b"after")
        self.assertEqual(error.filename, str(file))
        self.assertEqual(file.read_bytes(), b"before")
        self.assertEqual(list(directory.iterdir()), [file])
