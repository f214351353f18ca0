"""The manifest of a checkpoint or a result: what it is, and every file with its size and checksum."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longformer.errors import LongformerError
from longformer.files import write_json
from longformer.training.records import Progress

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader must know before opening a checkpoint's files."""

    phase: str
    phase_index: int
    progress: Progress
    data: dict[str, Any]
    """State of the batch source: its position and the fingerprint of its data."""
    ranks: int
    zero_stage: int
    precision: str
    config_fingerprint: str
    versions: dict[str, str]
    """Of torch, DeepSpeed and this package."""
    is_universal: bool = False
    """Whether the state is whole and fits any number of ranks and any ZeRO stage."""
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Relative path -> {"size": bytes, "sha256": hex}."""

    def fits(self, *, ranks: int, zero_stage: int) -> bool:
        """Returns whether so many ranks with this ZeRO stage can load the state as it is."""
        if self.is_universal:
            return True
        # Without ZeRO every rank holds everything, so their number does not matter.
        return zero_stage == self.zero_stage and (ranks == self.ranks or zero_stage == 0)

    def with_files_of(self, directory: Path) -> "Manifest":
        """Returns this manifest with an entry for every file below `directory`."""
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        files = {str(path.relative_to(directory)): describe_file(path) for path in paths}
        return dataclasses.replace(self, files=files)

    def write(self, directory: Path) -> None:
        """Writes manifest.json into `directory`, atomically."""
        write_json(directory / MANIFEST_FILE, dataclasses.asdict(self))

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Returns the manifest of a committed directory.

        Raises:
            LongformerError: the manifest is missing or not one of ours.
        """
        try:
            content = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
            manifest = cls(**content | {"progress": Progress(**content["progress"])})
            strangers = [name for name in manifest.files if Path(name).is_absolute() or ".." in Path(name).parts]
            if strangers:
                raise ValueError(f"{strangers[0]} lies outside the checkpoint")
            return manifest
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LongformerError(f"{directory.name}: its {MANIFEST_FILE} cannot be read ({error})") from error


def describe_file(path: Path) -> dict[str, Any]:
    """Returns the manifest's entry of a file."""
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": checksum}


def damage(directory: Path) -> str | None:
    """Returns in words what is wrong with a committed directory, or None when every file is as written."""
    try:
        files = Manifest.read(directory).files
    except LongformerError as error:
        return str(error)
    for name, expected in files.items():
        path = directory / name
        if not path.is_file():
            return f"{directory.name}: {name} is missing"
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{directory.name}: {name} has {size} bytes, its manifest says {expected['size']}"
        if describe_file(path) != expected:
            return f"{directory.name}: {name} is not what was written (its checksum differs)"
    return None
