"""Write a whole directory or not at all: everything goes into a hidden staging directory, is synced, then renamed.

A process that dies in between leaves only the staging directory, which the next one goes on with.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_pipeline.errors import DataError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def staged_directory(output: Path) -> Iterator[Path]:
    """Yields a directory that becomes `output` when the block ends without an exception.

    `output` must not exist or be an empty directory. On an exception, and after a kill, the staged files stay, and are
    there for the next start; what of them is whole and still wanted is for the caller to know.

    Raises:
        DataError: another process prepares the same output now, or the disk is full or not writable.
    """
    output = output.resolve()  # beside the real place of a symbolic link, so that the rename stays on its disk
    staging = output.parent / f".{output.name}.staging"
    with _failures_as_sentence(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(staging, output)
        try:
            yield staging
            for directory, _, names in os.walk(staging):
                for name in names:
                    _sync(Path(directory, name))
                _sync(Path(directory))
            staging.rename(output)
            _sync(output.parent)
        finally:
            os.close(lock)


def write_file(path: Path, content: bytes) -> None:
    """Writes or replace one file atomically and durably."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _locked(staging: Path, output: Path) -> int:
    """Returns a descriptor that holds the lock of the staging directory; closing it, or dying, lets go of it."""
    while True:
        staging.mkdir(exist_ok=True)
        descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DataError(f"another process is preparing {output} now: wait for it or stop it") from None
        # Between our mkdir and our lock the former holder may have renamed or removed the directory.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), staging.stat()):
                return descriptor
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _failures_as_sentence(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DataError(
                f"no space left while preparing {output}: free about 1.2 times the size of the uncompressed text "
                "there, or choose another output directory; what is done is kept"
            ) from error
        raise DataError(f"cannot write {output}: {error.strerror or error}; choose another output directory") from error
