"""Sets up the log of ``serve``: a line of text or a JSON object per record, on standard error.

The library itself only uses the loggers below ``cluster_pool`` and configures nothing. The command
owns its process: here Python's warnings and uncaught errors become records, too.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, TextIO

from cluster_pool.exceptions import InvalidValueError

log = logging.getLogger("cluster_pool")

Format = Literal["text", "json"]
LEVELS: Final = ("debug", "info", "warning", "error")


class _Formatter(logging.Formatter):
    """Shared by both formats: the time with its zone, the node, a message of one line."""

    def __init__(self) -> None:
        super().__init__()
        self.node: Callable[[], str] = lambda: ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's
        return (
            datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        )

    def message_of(self, record: logging.LogRecord) -> str:
        try:
            return record.getMessage().strip()
        except Exception as error:  # the arguments do not fit: a poor line is better than none
            return f"{record.msg} {record.args!r} ({error})"

    def behind(self, record: logging.LogRecord) -> str:
        """Return the traceback and the stack of a record, if it has any."""
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        return "\n".join([*parts, *([record.stack_info] if record.stack_info else [])])


class TextFormatter(_Formatter):
    """Formats ``TIME LEVEL NODE LOGGER: MESSAGE``, and a traceback in the lines below."""

    def format(self, record: logging.LogRecord) -> str:
        message = "\\n".join(self.message_of(record).splitlines())
        where = f"{self.formatTime(record)} {record.levelname} {self.node() or '-'} {record.name}"
        behind = self.behind(record)
        return f"{where}: {message}" + (f"\n{behind}" if behind else "")


class JsonFormatter(_Formatter):
    """Formats a JSON object: time, level, node, logger, message, and traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "node": self.node(),
            "logger": record.name,
            "message": self.message_of(record),
        }
        behind = self.behind(record)
        if behind:
            fields["traceback"] = behind
        return json_text(fields, sys.stderr)


def json_text(fields: dict[str, Any], stream: TextIO | None) -> str:
    """Make JSON for a stream: in ASCII unless the stream is encoded as UTF-8."""
    encoding = "" if stream is None else stream.encoding
    return json.dumps(fields, ensure_ascii=encoding.lower() not in ("utf-8", "utf8"))


def set_up(level: str, format: str) -> _Formatter:
    """Log to standard error from now on.

    Returns:
        The formatter; its ``node`` is to be set to a function that returns the node id.

    Raises:
        InvalidValueError: no such level or format.
    """
    if level.lower() not in LEVELS:
        raise InvalidValueError(f"--log-level must be debug, info, warning or error, not {level!r}")
    if format not in ("text", "json"):
        raise InvalidValueError(f"--log-format must be text or json, not {format!r}")
    formatter = JsonFormatter() if format == "json" else TextFormatter()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    number: int = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("websockets").setLevel(max(number, logging.WARNING))
    if number > logging.DEBUG:
        # It logs a traceback for each malformed request of a stranger. Whatever operators need to
        # know of a connection is logged by this package.
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    _log_uncaught()
    return formatter


def _log_uncaught() -> None:
    """Log errors that end a thread or the process, or came where none can be raised."""

    def excepthook(
        kind: type[BaseException], error: BaseException, at: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, at)
        else:
            log.critical("this process ends: nobody caught %s", kind.__name__, exc_info=error)

    def thread_excepthook(said: threading.ExceptHookArgs) -> None:
        name = said.thread.name if said.thread else "?"
        log.error("thread %s ended: nobody caught its error", name, exc_info=said.exc_value)

    def unraisablehook(said: Any) -> None:
        text = "".join(traceback.format_exception_only(said.exc_value)).strip()
        what = said.err_msg or "Exception ignored in"
        log.error("%s: %r: %s", what, said.object, text, exc_info=said.exc_value)

    sys.excepthook = excepthook
    threading.excepthook = thread_excepthook
    sys.unraisablehook = unraisablehook
