from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from txdbus.interface import DBusInterface
from txdbus.objects import DBusObject, RemoteDBusObject

class DBusClientConnection(Protocol):
    busName: str | None
    factory: DBusClientFactory
    transport: Any  # of a Unix socket
    _buffer: bytes
    def connectionMade(self) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def connectionLost(self, reason: Failure = ...) -> None: ...
    def disconnect(self) -> None: ...
    def notifyOnDisconnect(
        self, callback: Callable[[DBusClientConnection, Failure], object]
    ) -> None: ...
    def cancelNotifyOnDisconnect(
        self, callback: Callable[[DBusClientConnection, Failure], object]
    ) -> None: ...
    def exportObject(self, dbusObject: DBusObject) -> None: ...
    def unexportObject(self, objectPath: str) -> None: ...
    def getRemoteObject(
        self,
        busName: str,
        objectPath: str,
        interfaces: str | DBusInterface | Sequence[str | DBusInterface] | None = None,
        replaceKnownInterfaces: bool = False,
    ) -> Deferred[RemoteDBusObject]: ...
    def addMatch(
        self,
        callback: Callable[[Any], object],
        mtype: str | None = None,
        sender: str | None = None,
        interface: str | None = None,
        member: str | None = None,
        path: str | None = None,
        path_namespace: str | None = None,
        destination: str | None = None,
        arg: Sequence[tuple[int, str]] | None = None,
        arg_path: Sequence[tuple[int, str]] | None = None,
        arg0namespace: str | None = None,
    ) -> Deferred[int]: ...
    def delMatch(self, rule_id: int) -> Deferred[None]: ...
    def getNameOwner(self, busName: str) -> Deferred[str]: ...
    def getConnectionUnixUser(self, busName: str) -> Deferred[int]: ...
    def requestBusName(
        self,
        newName: str,
        allowReplacement: bool = False,
        replaceExisting: bool = False,
        doNotQueue: bool = True,
        errbackUnlessAcquired: bool = True,
    ) -> Deferred[int]: ...
    def releaseBusName(self, busName: str) -> Deferred[int]: ...
    # What a method returns is decided by the peer: a value, a list of values, or None.
    def callRemote(
        self,
        objectPath: str,
        methodName: str,
        interface: str | None = None,
        destination: str | None = None,
        signature: str | None = None,
        body: Sequence[object] | None = None,
        expectReply: bool = True,
        autoStart: bool = True,
        timeout: float | None = None,
        returnSignature: str = ...,
    ) -> Deferred[Any]: ...

class DBusClientFactory(Factory[DBusClientConnection]):
    d: Deferred[DBusClientConnection]
    def __init__(self) -> None: ...
    def getConnection(self) -> Deferred[DBusClientConnection]: ...

def connect(reactor: object, busAddress: str = "session") -> Deferred[DBusClientConnection]: ...
