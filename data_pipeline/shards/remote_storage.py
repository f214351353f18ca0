"""Shards on any storage that fsspec knows (s3://, gs://, https://, ...), read through a local cache of bounded size.

A request that fails or stalls is tried again, with growing pauses; one that keeps failing stops the run with one
sentence.
"""

import fcntl
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from data_pipeline.errors import DataError, MissingFileError
from data_pipeline.shards.storage import LocalDirectory, Storage

_PREFETCH_THREADS = 4


@dataclass(frozen=True)
class Patience:
    """How long a storage may fail before it counts as gone."""

    attempts: int = 8
    """Tries per file."""
    first_pause: float = 0.5
    """Seconds before the second try; every pause is twice as long as the one before, and a random part longer."""
    longest_pause: float = 30.0
    """Seconds."""
    stall: float = 60.0
    """Seconds without a new byte after which a transfer is given up and tried again."""


@dataclass(frozen=True)
class CachedRemote:
    """A storage behind fsspec and the bounded cache in front of it; ranks and workers of a machine share the cache."""

    location: str
    """URL of the directory."""
    cache: Path
    cache_bytes: int
    """Bound of all files in the cache; a removed file that a process has open takes room until it is closed."""
    patience: Patience = Patience()
    version: str = ""
    """Fingerprint of the data: files cached of other data at the same URL are not taken for these."""

    def open(self, name: str, size: int | None = None) -> IO[bytes]:
        """Opens the cached copy, fetching it first where it is not there.

        Raises:
            DataError: the file does not exist, or the storage kept failing.
        """
        target = self._directory / name
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._locked(name):
            while True:
                if not target.exists():
                    self._fetch(name, target, size)
                with suppress(FileNotFoundError):  # another process may have made room just now
                    os.utime(target)  # used last: removed last
                    file = target.open("rb", buffering=0)
                    break
        self._make_room(keep=target)
        return file

    def read(self, name: str) -> bytes:
        """Fetches a small file anew and returns its content.

        Raises:
            DataError: as `open`.
        """
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a stalled transfer may still write there
            self._fetch(name, Path(folder, name), None)
            return Path(folder, name).read_bytes()

    def of_version(self, version: str) -> "CachedRemote":
        """Returns the storage with a place of its own in the cache for this version of the data."""
        return replace(self, version=version)

    def prefetch(self, files: dict[str, int]) -> None:
        """Fetches the files in the background; what fails there is tried again, and reported, when it is needed."""
        names = list(files)
        for number in range(min(_PREFETCH_THREADS, len(names))):
            mine = {name: files[name] for name in names[number::_PREFETCH_THREADS]}
            threading.Thread(target=self._fetch_quietly, args=(mine,), daemon=True).start()

    def check(self, files: dict[str, int]) -> None:
        """Does nothing: every file is looked at when it is fetched."""

    def check_room(self, largest_files: int) -> None:
        """Raises DataError where the cache is too small, with the size that would do."""
        if largest_files > self.cache_bytes:
            raise DataError(
                f"the cache for {self.location} may hold {self.cache_bytes:,} bytes, the shards that are open or "
                f"fetched at one time need {largest_files:,}: give it so much, or keep fewer shards open"
            )

    @property
    def _directory(self) -> Path:
        return self.cache / hashlib.sha256(f"{self.location} {self.version}".encode()).hexdigest()[:16]

    def _fetch_quietly(self, files: dict[str, int]) -> None:
        for name, size in files.items():
            with suppress(DataError, OSError):
                self.open(name, size).close()

    def _fetch(self, name: str, target: Path, size: int | None) -> None:
        for left_over in target.parent.glob(f".{name}.*.partial"):  # of a killed process, or of a stalled transfer
            left_over.unlink(missing_ok=True)
        pause = self.patience.first_pause
        for attempt in range(1, self.patience.attempts + 1):
            failure = self._try_fetch(name, target, size)
            if failure is None:
                return
            if isinstance(failure, FileNotFoundError):
                raise MissingFileError(f"{self.location}/{name} does not exist: restore it or prepare the data again")
            if attempt < self.patience.attempts:
                time.sleep(pause * (1 + random.random()))
                pause = min(2 * pause, self.patience.longest_pause)
        reason = str(failure) or type(failure).__name__
        raise DataError(f"{self.location}/{name} could not be fetched in {self.patience.attempts} tries: {reason}")

    def _try_fetch(self, name: str, target: Path, size: int | None) -> Exception | None:
        """Fetches once; returns what went wrong. A transfer that stalls is left to its thread and given up."""
        outcome: list[Exception | None] = []
        # A file of this try alone: a transfer that was given up must not write into the next one's.
        partial = target.with_name(f".{name}.{os.getpid()}.{time.monotonic_ns()}.partial")

        def transfer() -> None:
            try:
                _file_system(self.location).get_file(f"{self.location.rstrip('/')}/{name}", str(partial))
                outcome.append(None)
            except Exception as error:  # every storage library raises classes of its own
                outcome.append(error)

        thread = threading.Thread(target=transfer, daemon=True)
        thread.start()
        grown_at, seen = time.monotonic(), 0
        while thread.is_alive():
            thread.join(timeout=min(1.0, self.patience.stall / 4))
            now = partial.stat().st_size if partial.exists() else 0
            if now != seen:
                grown_at, seen = time.monotonic(), now
            elif thread.is_alive() and time.monotonic() - grown_at > self.patience.stall:
                partial.unlink(missing_ok=True)
                return TimeoutError(f"no byte came for {self.patience.stall:g} seconds")
        failure = outcome[0]
        found = partial.stat().st_size if partial.exists() else 0
        if failure is None and size is not None and found != size:
            failure = OSError(f"{found} bytes came, the manifest says {size}")
        if failure is None:
            partial.rename(target)
        partial.unlink(missing_ok=True)
        return failure

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keeps other threads and processes from fetching the same file."""
        with (self._directory / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, keep: Path) -> None:
        """Removes what was used longest ago, of all data in the cache, until it is within its bound."""
        with self._locked("room"):
            files = []
            for path in self.cache.glob("*/[!.]*"):
                with suppress(FileNotFoundError):
                    facts = path.stat()
                    files.append((facts.st_mtime_ns, facts.st_size, path))
            excess = sum(size for _, size, _ in files) - self.cache_bytes
            for _, size, path in sorted(files):
                if excess <= 0:
                    break
                if path != keep:
                    path.unlink(missing_ok=True)
                    excess -= size


def open_storage(
    location: str, *, cache: Path | None = None, cache_bytes: int = 64 << 30, patience: Patience | None = None
) -> Storage:
    """Returns the storage at a path or URL.

    Args:
        cache: directory of the cache for remote files; None: .cache/longformer in the user's home directory.
        cache_bytes: its bound.
        patience: with failing storages.

    Raises:
        DataError: fsspec does not know the kind of URL, or lacks a package for it.
    """
    if "://" not in location:
        return LocalDirectory(location)
    try:
        _file_system(location)
    except (ImportError, ValueError) as error:
        raise DataError(f"{location} cannot be opened: {error}") from None
    cache = cache or Path.home() / ".cache" / "longformer"
    return CachedRemote(location.rstrip("/"), cache, cache_bytes, patience or Patience())


def _file_system(location: str):  # type: ignore[no-untyped-def]  # fsspec has no types
    """Returns fsspec's file system; it keeps one per process, so that this is safe after a fork."""
    import fsspec

    return fsspec.core.url_to_fs(location)[0]
