from typing import Literal

class Method:
    name: str
    sigIn: str
    sigOut: str
    def __init__(self, name: str, arguments: str = "", returns: str = "") -> None: ...

class Signal:
    name: str
    sig: str
    def __init__(self, name: str, arguments: str = "") -> None: ...

class Property:
    name: str
    sig: str
    def __init__(
        self,
        name: str,
        sig: str,
        readable: bool = True,
        writeable: bool = False,
        emitsOnChange: bool | Literal["invalidates"] = True,
    ) -> None: ...

class DBusInterface:
    name: str
    methods: dict[str, Method]
    signals: dict[str, Signal]
    properties: dict[str, Property]
    introspectionXml: str
    def __init__(self, name: str, *args: Method | Signal | Property) -> None: ...
