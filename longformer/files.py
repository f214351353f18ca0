"""Writing files so that after a crash they are either whole or not there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: readers see the old file or the new one, never a part."""
    staging = path.with_name(f".{path.name}.staging")
    with staging.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def committed_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `target`, with all it holds on the disk, when the block ends well.

    What a process that died has left is removed first; there must be one writer at a time.
    """
    staging = target.with_name(f".{target.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    yield staging
    for directory, _, names in os.walk(staging):
        for name in names:
            sync_file(Path(directory, name))
        sync_directory(Path(directory))
    staging.rename(target)
    sync_directory(target.parent)


def sync_file(path: Path) -> None:
    """Force the content of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Force the names in a directory to the disk, so that a rename survives a power cut."""
    sync_file(path)
