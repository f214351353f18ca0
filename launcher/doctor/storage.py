"""The file system where runs lie: writing, atomic renames, locks, room; and the shared memory of this machine."""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.doctor.finding import Finding, Level
from longformer.files import write_atomically

LEAST_ROOM = 2**30
ROOM_TO_WARN = 20 * 2**30
"""About three checkpoints of a Longformer-large: two that are kept and the one being written."""
LEAST_SHARED_MEMORY = 2**30
"""NCCL and data loaders need some hundred MB; a container gets 64 MB unless told otherwise."""
_RENAMES = 300
_SHARED_MEMORY = Path("/dev/shm")


def check_storage(directory: Path) -> list[Finding]:
    """Writes, rename and lock in a directory, or in the nearest one above it that exists."""
    written = _writing(directory)
    if written.level is not Level.OK:
        return [written]
    return [written, _renaming(directory), _locking(directory)]


def _writing(directory: Path) -> Finding:
    """Writes a file as checkpoints are written, forced to the disk, and read it back."""
    content = os.urandom(2**20)
    try:
        with scratch(directory) as folder:
            write_atomically(folder / "file", content)
            if (folder / "file").read_bytes() != content:
                remedy = f"Have the disk under {directory} checked; nothing written there can be trusted."
                return Finding("write", Level.MISS, "a file read back differs from what was written", remedy)
    except OSError as error:
        remedy = f"Make {directory} writable for this user, or choose another place with --runs."
        return Finding("write", Level.MISS, f"cannot write: {error.strerror}", remedy)
    return Finding("write", Level.OK, f"{directory} can be written")


def _renaming(directory: Path) -> Finding:
    """Replaces a file many times by renaming while it is read: a reader must never find it gone or cut short."""
    faults: list[str] = []
    done = threading.Event()

    def read(file: Path) -> None:
        while not done.is_set():
            try:
                content = file.read_bytes()
            except OSError as error:
                faults.append(f"the file was gone for a moment ({error.strerror})")
                return
            if len(content) != 4096 or len(set(content)) != 1:
                faults.append("a reader saw a part of the file")
                return

    with scratch(directory) as folder:
        file, staging = folder / "file", folder / "staging"
        file.write_bytes(bytes(4096))
        reader = threading.Thread(target=read, args=(file,))
        reader.start()
        for index in range(_RENAMES):
            staging.write_bytes(bytes([index % 256]) * 4096)
            staging.replace(file)
        done.set()
        reader.join()
    if faults:
        remedy = f"Keep runs on a file system with atomic renames (POSIX, not object storage); {directory} has none."
        return Finding("rename", Level.MISS, faults[0], remedy)
    return Finding("rename", Level.OK, "renames are atomic")


def _locking(directory: Path) -> Finding:
    """Holds a file lock and see that another one is refused."""
    remedy = "Mount the file system with locks (Lustre: -o flock; NFS: without nolock), or choose another with --runs."
    with scratch(directory) as folder, (folder / "lock").open("w") as first, (folder / "lock").open() as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Finding("lock", Level.MISS, f"flock does not work: {error.strerror}", remedy)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Finding("lock", Level.OK, "flock keeps others out")
    return Finding("lock", Level.MISS, "flock was granted twice: two runs could write in one directory", remedy)


def check_room(directory: Path) -> list[Finding]:
    """Looks at the free room on the disk of the runs, and on that of temporary files."""
    places = {"disk of the runs": existing_part(directory), "temporary files": Path(tempfile.gettempdir())}
    return [room_finding(name, place, shutil.disk_usage(place).free) for name, place in places.items()]


def room_finding(name: str, place: Path, free: int) -> Finding:
    """Returns whether so many free bytes are enough."""
    if free >= ROOM_TO_WARN:
        return Finding(name, Level.OK, f"at least {ROOM_TO_WARN / 2**30:.0f} GiB free")
    level = Level.MISS if free < LEAST_ROOM else Level.WARN
    return Finding(name, level, f"{free / 2**30:.1f} GiB free", f"Make room on the disk of {place}.")


def check_shared_memory(place: Path = _SHARED_MEMORY) -> list[Finding]:
    """Looks at the size of the memory that processes of this machine share."""
    if not place.is_dir():
        return []  # not Linux
    total = shutil.disk_usage(place).total
    if total >= LEAST_SHARED_MEMORY:
        return [Finding("shared memory", Level.OK, f"at least {LEAST_SHARED_MEMORY / 2**30:.0f} GiB")]
    remedy = "Start the container with more, such as --shm-size=8g or --ipc=host."
    return [Finding("shared memory", Level.WARN, f"{place} holds only {total / 2**20:.0f} MiB", remedy)]


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """Yields a new folder on the file system of a directory that need not exist yet, and removes it at the end."""
    with tempfile.TemporaryDirectory(prefix=".longformer-doctor-", dir=existing_part(directory)) as folder:
        yield Path(folder)


def existing_part(directory: Path) -> Path:
    """Returns the directory or the nearest one above it that exists."""
    directory = directory.absolute()
    return next(each for each in (directory, *directory.parents) if each.exists())
