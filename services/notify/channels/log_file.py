"""The channel ``log``: one JSON line a message, for whoever follows the file."""

from __future__ import annotations

import os
from pathlib import Path

from services.grid import json
from services.notify.channels import Message, Sent


class LogFile:
    """Appends to a file; it may be rotated at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, message: Message) -> Sent:
        """See :class:`services.notify.channels.Channel`."""
        line = json.dumps(message.body()) + b"\n"
        try:
            # One write to a file opened for appending: lines of several processes don't mix.
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)
        except OSError as error:
            return Sent(f"the log file can't be written: {error.strerror}")
        return Sent()
