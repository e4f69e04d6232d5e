from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from txdbus.client import DBusClientConnection
from txdbus.interface import DBusInterface

_F = TypeVar("_F", bound=Callable[..., object])

def dbusMethod(interfaceName: str, methodName: str) -> Callable[[_F], _F]: ...

class DBusProperty:
    def __init__(self, dbusPropertyName: str, interface: str | None = None) -> None: ...
    def __get__(self, instance: object, owner: type) -> Any: ...
    def __set__(self, instance: object, value: object) -> None: ...

class RemoteDBusObject:
    busName: str
    objectPath: str
    interfaces: list[DBusInterface]
    def notifyOnDisconnect(
        self, callback: Callable[[RemoteDBusObject, Failure], object]
    ) -> None: ...
    def cancelNotifyOnDisconnect(
        self, callback: Callable[[RemoteDBusObject, Failure], object]
    ) -> None: ...
    def notifyOnSignal(
        self, signalName: str, callback: Callable[..., object], interface: str | None = None
    ) -> Deferred[int]: ...
    def cancelSignalNotification(self, rule_id: int) -> Deferred[None]: ...
    # What a method returns is decided by the peer: a value, a list of values, or None.
    def callRemote(
        self,
        methodName: str,
        *args: object,
        expectReply: bool = True,
        autoStart: bool = True,
        timeout: float | None = None,
        interface: str | None = None,
    ) -> Deferred[Any]: ...

class DBusObject:
    dbusInterfaces: ClassVar[list[DBusInterface]]
    def __init__(self, objectPath: str) -> None: ...
    def getConnection(self) -> DBusClientConnection: ...
    def getInterfaces(self) -> list[DBusInterface]: ...
    def getObjectPath(self) -> str: ...
    def emitSignal(self, signalName: str, *args: object, interface: str | None = None) -> None: ...
