"""What commands hear from an agent over its control socket."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.client.control import SOCKET, call
from ntmobile.errors import UnknownName, Unreachable

#: How long anything here may take, in seconds.
PATIENCE = 10.0


class ConverseTests(SynchronousTestCase):
    """A command asks; an agent, played by a thread, does something."""

    def agent(self, serve: Callable[[socket.socket], None]) -> Path:
        """A state directory whose agent treats one connection so; gives the directory."""
        # Short, since the other end of this name is bound as it is: sun_path holds 108 bytes.
        state = Path(tempfile.mkdtemp(prefix="ntm-"))
        self.addCleanup(shutil.rmtree, state, ignore_errors=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.settimeout(PATIENCE)
        listening.bind(str(state / SOCKET))
        listening.listen()

        def run() -> None:
            with listening, listening.accept()[0] as connection:
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        return state

    def saying(self, message: object) -> Path:
        """An agent that answers this."""

        def serve(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(json.dumps(message).encode() + b"\n")

        return self.agent(serve)

    def test_control_characters(self) -> None:
        """Texts of other machines cannot steer the terminal on which they are shown."""
        told = {"result": {"decision": "\x1b]0;owned\x07", "paths": [{"relay": "r1\n\x9b2J"}]}}
        answer = call(self.saying(told), "why", name="phone.alice.dc1.ntm.example")
        self.assertEqual(answer, {"decision": "?]0;owned?", "paths": [{"relay": "r1??2J"}]})

    def test_error(self) -> None:
        """An error is raised as what it was in the agent, in one line."""
        told = {"error": "nobody\r\x1b[1A", "kind": "UnknownName"}
        problem = self.assertRaises(UnknownName, call, self.saying(told), "ping")
        self.assertEqual(str(problem), "nobody??[1A")

    def test_ends(self) -> None:
        """An agent that ends before it answers is one error, however the connection goes."""

        def reset(connection: socket.socket) -> None:
            pass  # what was sent to it is not read: that resets the connection

        problem = self.assertRaises(Unreachable, call, self.agent(reset), "down")
        self.assertIn("ended before it answered", str(problem))
