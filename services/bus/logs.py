"""Logs: one JSON object a line on standard output, or plain colours on a terminal.

They hold references (case ids, event ids), never bodies, names, numbers or tracking codes.
What nameko, kombu and the other libraries log goes the same way.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from services.grid.events import Event

# What these libraries say below these levels holds documents, messages or nothing of use.
_LIBRARIES = {
    "pymongo": logging.WARNING,
    "amqp": logging.INFO,
    "kombu": logging.INFO,
    "nameko": logging.INFO,
    # It repeats every exception of a request handler, which services.bus.web answers and logs.
    "nameko.containers": logging.ERROR,
    # Its lines quote the request line, which may hold a tracking code.
    "eventlet.wsgi": logging.CRITICAL,
}


def configure(level: str, **about: str) -> None:
    """Sends all logs of this process to standard output.

    :param level: ``debug``, ``info``, ``warning`` or ``error``.
    :param about: what every line says, such as ``service`` and ``level``.
    """

    def identified(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {**about, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        identified,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]
    if sys.stdout.isatty():
        # The default formatter shows local variables, and those hold bodies.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    else:
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_line),
        ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _LIBRARIES.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


@contextmanager
def about(*, case: str | None = None, event: str | None = None) -> Iterator[None]:
    """Every line logged inside says which case and which event it is about."""
    bound = {name: value for name, value in (("case", case), ("event_id", event)) if value}
    with structlog.contextvars.bound_contextvars(**bound):
        yield


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; call it as ``get(__name__)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def each(logger: structlog.stdlib.BoundLogger, said: str, events: Iterable[Event]) -> None:
    """A debug line for each event, with its case and id; without debug it costs nothing."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        for event in events:
            logger.debug(said, type=event.type, case=event.subject, event_id=event.id)


def _line(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)
