"""Structured logs: one JSON object a line, to the log file and, in the foreground, to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog

LOG_BYTES = 32 << 20
BACKUPS = 4


def configure(path: Path | None, level: str, redact: Callable[[Any], Any] = lambda value: value) -> None:
    """Send logs of the given level to ``path`` and stderr; secrets are taken out of every field.

    Raises:
        OSError: the log cannot be opened.
    """
    logging.raiseExceptions = False  # a full disk loses lines of the log, and is no reason for tracebacks
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=BACKUPS))
    logging.basicConfig(format="%(message)s", handlers=handlers, level=level.upper(), force=True)
    for chatty in ("transitions", "watchdog", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            lambda _logger, _method, fields: redact(dict(fields)),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def set_level(level: str) -> None:
    """Change the level while running."""
    logging.getLogger().setLevel(level.upper())
