"""The service of the process in the namespace, in this process and without a namespace."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.errors import NotRegistered, NTMobileError
from ntmobile.plugins.netns import channel
from ntmobile.plugins.netns.channel import Channel, ChannelLost, Message
from ntmobile.plugins.netns.helper import Service
from ntmobile.plugins.netns.inside import Answer, VirtualNetwork


class NoNetwork:
    """Stands for the namespace."""

    def __init__(self) -> None:
        self.operations = {"attach": self.attach, "socket": self.refuse, "configure": self.missing}

    def attach(self, request: Message) -> Answer:
        return {}, (os.open("/dev/null", os.O_RDONLY),)

    def refuse(self, request: Message) -> Answer:
        raise OSError(97, "Address family not supported")

    def missing(self, request: Message) -> Answer:
        return {"got": request["nothing"]}, ()


class ServiceTests(SynchronousTestCase):
    """Requests, good and bad, and when it ends."""

    def setUp(self) -> None:
        self.state = Path(self.mktemp()).resolve()
        self.state.mkdir()
        self.path = self.state / channel.SOCKET
        network = cast(VirtualNetwork, NoNetwork())
        self.service = Service(self.path, network, check=0.05)
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()
        self.addCleanup(self.finish)

    def finish(self) -> None:
        """End it."""
        channel.end(self.state)
        self.ends()
        self.service.end()

    def ends(self) -> None:
        """Wait for its end."""
        self.thread.join(5)
        self.assertFalse(self.thread.is_alive())

    def connect(self) -> Channel:
        """Open a conversation."""
        connection = Channel.connect(self.state)
        self.addCleanup(connection.close)
        return connection

    def raw(self) -> socket.socket:
        """Open a conversation of one's own words."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(connection.close)
        connection.settimeout(5)
        with channel.short_path(self.path) as path:
            connection.connect(path)
        return connection

    def test_descriptors(self) -> None:
        """An answer brings a descriptor of the asker's own."""
        _, [descriptor] = self.connect().request("attach")
        self.assertTrue(os.path.samestat(os.fstat(descriptor), os.stat("/dev/null")))
        os.close(descriptor)

    def test_one_agent(self) -> None:
        """Only one may attach; when it has gone, another."""
        first, second = self.connect(), self.connect()
        os.close(first.request("attach")[1][0])
        with self.assertRaisesRegex(NTMobileError, "another agent"):
            second.request("attach")
        first.close()
        os.close(self.connect().request("attach")[1][0])

    def test_failures_are_told(self) -> None:
        """What the system refuses, what is unknown and what is missing is an error, no more."""
        connection = self.connect()
        for operation, text in (
            ("socket", "Address family not supported"),
            ("colour", "knows no 'colour'"),
            ("configure", "could not configure"),
        ):
            with self.assertRaisesRegex(NTMobileError, text):
                connection.request(operation)

    def test_agent_without_offload(self) -> None:
        """An agent that does not know what is before each packet is told what to do."""
        network = VirtualNetwork(-1, cast(Any, None), cast(Any, None))
        answer, descriptors = network.attach({"op": "attach", "version": channel.VERSION})
        self.assertIn("ntm down", answer["error"])
        self.assertEqual(descriptors, ())

    def test_other_version(self) -> None:
        """A client of another version is told what to do, and may still end it."""
        connection = self.connect()
        raw = self.raw()
        raw.send(b'{"op": "attach", "version": 1000}')
        self.assertIn(b"ntm down", raw.recv(1000))
        raw.send(b'{"op": "shutdown", "version": 1000}')
        self.assertEqual(b"{}", raw.recv(1000))
        self.assertRaises(ChannelLost, connection.request, "attach")

    def test_garbage(self) -> None:
        """Words that are no request end that conversation, and harm no other."""
        for words in (b"\xff", b"[]", b"7", b"{", b'{"op": []}', b"[" * 60_000, b"x" * 100_000):
            raw = self.raw()
            raw.send(words)
            self.assertLess(len(raw.recv(1000)), 200)
        self.assertRaises(NTMobileError, self.connect().request, "colour")

    def test_strays_are_closed(self) -> None:
        """Descriptors that come with a request are not kept."""
        raw = self.raw()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        socket.send_fds(raw, [b'{"op": "colour", "version": 1}'], [write])
        os.close(write)
        raw.recv(1000)
        self.assertEqual(b"", os.read(read, 1))

    def test_shutdown(self) -> None:
        """After the answer the place is free for another."""
        self.connect().request("shutdown")
        self.assertFalse(self.path.exists())
        self.ends()

    def test_socket_removed(self) -> None:
        """When nobody can reach it any more it ends by itself."""
        self.path.unlink()
        self.ends()

    def test_socket_removed_under_an_agent(self) -> None:
        """An agent that is there keeps it; it ends after that agent."""
        agent = self.connect()
        os.close(agent.request("attach")[1][0])
        self.path.unlink()
        self.assertRaises(NTMobileError, agent.request, "socket")
        agent.close()
        self.ends()

    def test_successor(self) -> None:
        """A socket that another has put in its place is not taken away."""
        self.path.unlink()
        other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(other.close)
        with channel.short_path(self.path) as path:
            other.bind(path)
        self.ends()
        self.assertTrue(self.path.exists())

    def test_dead_socket(self) -> None:
        """A socket that nobody listens to is no virtual network."""
        state = Path(self.mktemp()).resolve()
        state.mkdir()
        dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with channel.short_path(state / channel.SOCKET) as path:
            dead.bind(path)
        dead.close()
        self.assertRaises(NotRegistered, Channel.connect, state)
        self.assertFalse(channel.end(state))
