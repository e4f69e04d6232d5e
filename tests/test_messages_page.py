from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.wire.codec import declarations, decode, encode

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "messages.py"


def script() -> ModuleType:
    """The script that makes page and vectors."""
    spec = spec_from_file_location("ntmobile_docs_messages", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class VectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Read the vectors."""
        self.script = script()
        self.vectors: dict[int, dict[str, Any]] = self.script.read_vectors()

    def test_every_message_has_one(self) -> None:
        """There is a vector for each declared message, under its title, and for no other."""
        self.assertEqual(
            {each.number: each.title for each in declarations()},
            {number: one["title"] for number, one in self.vectors.items()},
        )

    def test_they_are_read(self) -> None:
        """Each vector's bytes decode to its fields."""
        for number, one in self.vectors.items():
            message = decode(bytes.fromhex(one["hex"]))
            fields = self.script.plain(message)
            # Fields that were added since, with their defaults, are no change.
            self.assertEqual({name: fields[name] for name in one["fields"]}, one["fields"])
            self.assertEqual(int(one["hex"][:4], 16), number)

    def test_they_are_written(self) -> None:
        """What a vector says is encoded to its bytes, as long as no field was added."""
        for one in self.vectors.values():
            message = decode(bytes.fromhex(one["hex"]))
            if set(self.script.plain(message)) == set(one["fields"]):
                self.assertEqual(encode(message).hex(), one["hex"])

    def test_page(self) -> None:
        """The committed page is what the declarations and vectors say (python -m docs.messages)."""
        committed = self.script.PAGE.read_text("utf-8")
        self.assertEqual(committed, self.script.page(self.vectors))
