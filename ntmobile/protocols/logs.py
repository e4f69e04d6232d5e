"""How services log: readable lines on a terminal, or JSON lines with all fields.

``--log-format json|text`` of the ``twistd`` plugins and the words of ``NTM_LOG`` (separated by
commas) decide: a format, ``json`` or ``text``; a level, ``debug``, ``info``, ``warn`` or ``error``;
and ``trace`` for the messages of the protocol alone (:mod:`ntmobile.protocols.trace`), which
``debug`` includes. See ``docs/operations/logs.md``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final, cast

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface import implementer

from ntmobile.errors import ConfigurationError
from ntmobile.protocols import trace
from ntmobile.wire.text import printable

VARIABLE: Final = "NTM_LOG"
FORMATS: Final = ("text", "json")
LEVELS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
TRACE: Final = "trace"
#: Whose lower levels tell of sockets and factories, which nobody asked about.
_NOISY: Final = ("twisted.", "log_legacy", "txdbus")
_LEFT_OUT: Final = ("log_", "message_", "shown")
_RANK: Final = [LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical]


@frozen
class LogSettings:
    """What to log and how.

    :ivar format: ``text`` or ``json``. :ivar level: the least; a :class:`LogLevel`.
    :ivar trace: whether messages of the protocol are logged.
    """

    format: str = "text"
    level: Any = LogLevel.info
    trace: bool = False

    @classmethod
    def read(
        cls, option: str | None = None, environment: Mapping[str, str] = os.environ
    ) -> LogSettings:
        """From ``--log-format`` and the environment, of which the option wins.

        :raises ConfigurationError: a word that is none of those.
        """
        form, level, traced = "text", LogLevel.info, False
        for word in environment.get(VARIABLE, "").replace(",", " ").split():
            if word in FORMATS:
                form = word
            elif word in LEVELS:
                level = LEVELS[word]
            elif word == TRACE:
                traced = True
            else:
                known = ", ".join([*FORMATS, *LEVELS, TRACE])
                raise ConfigurationError(f"{VARIABLE}: {word!r} is none of {known}")
        if option is not None and option not in FORMATS:
            raise ConfigurationError(f"--log-format: {option!r} is neither text nor json")
        return cls(option or form, level, traced or level is LogLevel.debug)

    def admits(self, event: LogEvent) -> bool:
        """Whether an event is to be logged."""
        level = event.get("log_level") or LogLevel.info
        namespace = str(event.get("log_namespace", ""))
        if namespace == trace.NAMESPACE:
            return self.trace
        if namespace.startswith(_NOISY) and self.level is not LogLevel.debug:
            return _RANK.index(level) >= _RANK.index(LogLevel.warn) or bool(event.get("isError"))
        return _RANK.index(level) >= _RANK.index(self.level)

    def observer(self, stream: IO[str]) -> LogObserver:
        """An observer that writes to a stream."""
        return LogObserver(stream, self)


@implementer(ILogObserver)
class LogObserver:
    """Writes a line for each event that the settings admit, and tracebacks below it.

    :param stream: where to; flushed after each event.
    """

    def __init__(self, stream: IO[str], settings: LogSettings) -> None:
        self._stream = stream
        self._settings = settings
        text = as_text if _is_terminal(stream) else as_dated_text
        self._line = as_json if settings.format == "json" else text

    def __call__(self, event: LogEvent) -> None:
        """One event."""
        if not self._settings.admits(event):
            return
        try:
            self._stream.write(self._line(event) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # a full disk or a closed terminal must not stop the service


def as_text(event: LogEvent) -> str:
    """``12:34:56.789 relay: text``; a level above info is named."""
    moment = (
        datetime.fromtimestamp(event["log_time"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    )
    level = event.get("log_level") or LogLevel.info
    mark = "" if level is LogLevel.info else f"{level.name.upper()} "
    first, *more = formatEvent(event).split("\n")
    lines = [f"{moment} {component(event)}: {mark}{first}"]
    lines += [f"    {line}" for line in (*more, *_traceback(event))]
    # What comes from peers forges no line, and commands no terminal.
    return "\n".join(printable(line.expandtabs()) for line in lines)


def as_dated_text(event: LogEvent) -> str:
    """As :func:`as_text`, with the day before it: a file is read later than a terminal."""
    day = datetime.fromtimestamp(event["log_time"], UTC).astimezone().strftime("%Y-%m-%d")
    return f"{day} {as_text(event)}"


def as_json(event: LogEvent) -> str:
    """One object: ``time`` (unix seconds), ``level``, ``component``, ``text``, and all fields."""
    level = event.get("log_level") or LogLevel.info
    line: dict[str, object] = {
        "time": round(float(event["log_time"]), 6),
        "level": level.name,
        "component": event.get("log_namespace", ""),
        "text": formatEvent(event),
    }
    for name, value in event.items():
        if not name.startswith(_LEFT_OUT) and name not in line and name not in _LEGACY:
            line[name] = value
    traceback = _traceback(event)
    if traceback:
        line["traceback"] = "\n".join(traceback)
    return json.dumps(line, default=str, ensure_ascii=False)


def _is_terminal(stream: IO[str]) -> bool:
    isatty = getattr(stream, "isatty", None)  # Twisted's LogFile has none
    return isatty is not None and bool(isatty())


#: What twisted.python.log adds to each of its events.
_LEGACY: Final = frozenset({"isError", "failure", "why", "system", "format"})


def component(event: LogEvent) -> str:
    """The part of the program that an event is of, in short."""
    namespace = str(event.get("log_namespace", "-"))
    last = namespace.rpartition(".")[2]
    return "program" if last in ("stdout", "stderr", "log_legacy") else last


def _traceback(event: LogEvent) -> list[str]:
    failure = event.get("log_failure") or event.get("failure")
    if not isinstance(failure, Failure):
        return []
    return failure.getTraceback().rstrip().splitlines()


def begin_logging(stream: IO[str] = sys.stderr) -> None:
    """Log as ``NTM_LOG`` says, in a program that ``twistd`` does not run.

    :raises ConfigurationError: a word there is wrong.
    """
    settings = LogSettings.read()
    trace.switch.on = settings.trace
    globalLogBeginner.beginLoggingTo([settings.observer(stream)], redirectStandardIO=False)


class LogOptions(usage.Options):
    """Options of a service that say how it logs; for its options class to inherit."""

    optParameters = [["log-format", None, None, "How to log: text or json [$NTM_LOG, text]."]]

    def parseOptions(self, options: Any = None) -> None:
        """Read them; under ``twistd`` what is wrong with them is one line, without the usage."""
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as problem:
            program = getattr(getattr(self, "parent", None), "subCommand", None)
            if program is None:
                raise
            raise SystemExit(f"{program}: {problem}; see: twistd {program} --help") from None

    def observer(self, reactor: Any) -> LogObserver | None:
        """The observer for ``twistd``; None where its own options name another.

        :raises ConfigurationError: a wrong word in option or environment, or no such file.
        """
        settings = LogSettings.read(self["log-format"])
        trace.switch.on = settings.trace
        outer: Mapping[str, Any] = getattr(self, "parent", None) or {}
        if outer.get("logger") or outer.get("syslog"):
            return None
        return settings.observer(_stream(outer, reactor))


def _stream(outer: Mapping[str, Any], reactor: Any) -> IO[str]:
    """Where twistd would log: ``--logfile``, else the terminal or ``twistd.log``."""
    name = outer.get("logfile")
    if name == "-" or (not name and outer.get("nodaemon", True)):
        return sys.stdout
    name = name or "twistd.log"
    try:
        file = LogFile.fromFullPath(name)
    except OSError as problem:
        raise ConfigurationError(f"--logfile {name}: {problem.strerror}") from None
    if not signal.getsignal(signal.SIGUSR1):
        # As twistd does for its own log file; the reactor has not run yet.
        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(file.rotate))
    return cast(IO[str], file)
