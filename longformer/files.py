"""Writing files so that after a crash they are either whole or not there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longformer.errors import LongformerError


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step: readers see the old file or the new one, never a part."""
    staging = staging_of(path)
    with staging.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON file that holds an object.

    Raises:
        LongformerError: it is missing or something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise LongformerError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise LongformerError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise LongformerError(f"{path} is not a JSON object")
    return content


@contextmanager
def committed_directory(target: Path) -> Iterator[Path]:
    """Yields an empty directory that becomes `target`, with all it holds on the disk, when the block ends well.

    After an exception nothing is left. What a process that died has left is removed first; there must be one writer at
    a time.
    """
    staging = empty_staging(target)
    try:
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                sync_file(path)
        commit_directory(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def staging_of(target: Path) -> Path:
    """Returns the hidden path beside `target` where it is put together."""
    return target.with_name(f".{target.name}.staging")


def empty_staging(target: Path) -> Path:
    """Makes the empty directory in which `target` is put together, and returns it."""
    staging = staging_of(target)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def commit_directory(staging: Path, target: Path) -> None:
    """Gives a directory whose files are synced its final name, in one step that survives a power cut."""
    for directory in (*(path for path in staging.rglob("*") if path.is_dir()), staging):
        sync_directory(directory)
    staging.rename(target)
    sync_directory(target.parent)


def sync_file(path: Path) -> None:
    """Forces the content of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Forces the names in a directory to the disk, so that a rename survives a power cut."""
    sync_file(path)
