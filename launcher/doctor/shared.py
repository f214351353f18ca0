"""Whether nodes share the file system of the runs: what one writes the other reads, and locks hold across them."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.doctor.finding import Finding, Level
from launcher.doctor.storage import scratch

_WORD = "written by the first node"
_NOT_SHARED = "Keep runs on storage that all nodes mount at the same place (see --runs)."


@contextmanager
def shared_folder(directory: Path) -> Iterator[Path]:
    """Yields a folder that holds a word and a lock which this process keeps."""
    with scratch(directory) as folder:
        (folder / "word").write_text(_WORD)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def check_shared(folder: Path, node: str) -> list[Finding]:
    """On a node: read the first node's word, try its lock, and leave a word for `answer_arrived`."""
    try:
        is_same = (folder / "word").read_text(encoding="utf-8") == _WORD
        (folder / f"{node}.staging").write_text(node)
        (folder / f"{node}.staging").rename(folder / node)
        with (folder / "lock").open() as lock:
            is_kept_out = _is_locked(lock.fileno())
    except OSError as error:
        found = f"the first node's files are not there ({error.strerror})"
        return [Finding("shared storage", Level.MISS, found, _NOT_SHARED)]
    if not is_same:
        return [Finding("shared storage", Level.MISS, "the first node's file has another content", _NOT_SHARED)]
    if not is_kept_out:
        found = "a lock held by the first node is not seen"
        remedy = "Mount the file system with locks across nodes (Lustre: -o flock; NFS: without nolock or local_lock)."
        return [Finding("shared storage", Level.WARN, found, remedy)]
    return [Finding("shared storage", Level.OK, "files and locks of the first node are seen")]


def answer_arrived(folder: Path, node: str) -> Finding:
    """On the first node: look for the word that `check_shared` left on another."""
    try:
        if (folder / node).read_text(encoding="utf-8") == node:
            return Finding("seen from the first node", Level.OK, "its files arrive")
    except OSError:
        pass
    return Finding("seen from the first node", Level.MISS, "its files do not arrive", _NOT_SHARED)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
