"""Follows metrics.jsonl while another process writes it.

Promises whole records only, each once and in order, until the file is cut back by a resumed run: then
it starts over from the first record.
"""

import json
import os
from pathlib import Path
from typing import Any


class MetricsFollower:
    """Reads what was appended to a JSON Lines file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_identity: int | None = None
        self._offset = 0

    def new_records(self) -> list[dict[str, Any]]:
        """Return the records written since the last call; none while the file does not exist."""
        try:
            with self._path.open("rb") as file:
                identity = os.fstat(file.fileno()).st_ino
                if identity != self._file_identity:  # a cut-back file is a new file under the old name
                    self._file_identity, self._offset = identity, 0
                file.seek(self._offset)
                appended = file.read()
        except FileNotFoundError:
            return []
        whole = appended[: appended.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
