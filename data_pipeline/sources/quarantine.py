"""The list of damaged samples that were skipped, by name: a bounded number is allowed, none is skipped in silence."""

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.errors import DataError


@dataclass
class Quarantine:
    """Names and reasons of damaged samples.

    With a `path` the list is a file of JSON lines that ranks, loader workers and restarts share (on a file system that
    they share), so that the bound holds for all of them together; a sample met twice counts once. Without one, every
    process counts for itself.
    """

    limit: int
    """Number of damaged samples that are allowed before the run stops."""
    path: Path | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    """Names of files that are no part of the data, such as pictures, and why; any number of them is allowed."""
    _reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        """Puts a sample on the list.

        Raises:
            DataError: there are more than `limit` by now; the sentence names this one.
        """
        if name in self._reasons:
            return
        self._reasons[name] = reason
        if self.path is not None:
            self._merge(self.path, name)
        if len(self._reasons) > self.limit:
            where = f" (all are named in {self.path})" if self.path else ""
            raise DataError(
                f"{name} is damaged: {reason}; {len(self._reasons)} damaged samples are more than the {self.limit} "
                f"allowed{where}: mend the data or allow more"
            )

    def leave_out(self, name: str, reason: str) -> None:
        """Puts a file on the list that is no part of the data."""
        self.left_out[name] = reason

    def items(self) -> list[tuple[str, str]]:
        """Returns the names that this process knows of, in the order they were found, and the reasons."""
        return list(self._reasons.items())

    def save(self, path: Path) -> None:
        """Writes both lists as JSON lines of name and reason."""
        lines = (_line(name, reason) for name, reason in (self._reasons | self.left_out).items())
        path.write_text("".join(lines), encoding="utf-8")

    def _merge(self, path: Path, name: str) -> None:
        """Adds `name` to the file and takes over what others have written there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            written = {line["name"]: line["reason"] for line in map(json.loads, file)}
            if name not in written:
                file.write(_line(name, self._reasons[name]).encode())
            self._reasons = written | self._reasons


def _line(name: str, reason: str) -> str:
    return json.dumps({"name": name, "reason": reason}) + "\n"
