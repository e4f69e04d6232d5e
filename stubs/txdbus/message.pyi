from collections.abc import Sequence

class SignalMessage:
    rawMessage: bytes
    def __init__(
        self,
        path: str,
        member: str,
        interface: str,
        destination: str | None = None,
        signature: str | None = None,
        body: Sequence[object] | None = None,
    ) -> None: ...
