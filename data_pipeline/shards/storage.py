"""Where prepared shards lie, and what the reader asks of such a place. The simplest place: a directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from data_pipeline.errors import DataError, MissingFileError


class Storage(Protocol):
    """A place with files."""

    @property
    def location(self) -> str:
        """The path or URL of the place."""
        ...

    def open(self, name: str, size: int | None = None) -> IO[bytes]:
        """Returns `name`, of `size` bytes where that is known, open and unbuffered on the local disk."""
        ...

    def read(self, name: str) -> bytes:
        """Returns the whole content of a small file as it is now."""
        ...

    def of_version(self, version: str) -> "Storage":
        """Returns the storage that never gives files it has kept of another version of the data."""
        ...

    def prefetch(self, files: dict[str, int]) -> None:
        """Begins to bring files (name and size) near, without waiting for them."""
        ...

    def check(self, files: dict[str, int]) -> None:
        """Raises DataError where one of the files (name and size) is missing or has another size, if that is cheap."""
        ...

    def check_room(self, largest_files: int) -> None:
        """Raises DataError where files of that size together cannot be near at the same time, in bytes."""
        ...


@dataclass(frozen=True)
class LocalDirectory:
    """A directory on this machine: nothing to fetch."""

    location: str

    def open(self, name: str, size: int | None = None) -> IO[bytes]:
        """Opens the file itself.

        Raises:
            DataError: it is missing or has another size.
        """
        path = Path(self.location, name)
        if size is not None:
            self.check({name: size})
        try:
            return path.open("rb", buffering=0)
        except OSError as error:
            raise _unreadable(path, error) from None

    def read(self, name: str) -> bytes:
        """Returns the content of a file; DataError where it is missing."""
        with self.open(name) as file:
            return file.read()

    def of_version(self, version: str) -> "LocalDirectory":
        """Returns the same: nothing is kept."""
        return self

    def prefetch(self, files: dict[str, int]) -> None:
        """Does nothing: the page cache of the operating system reads ahead."""

    def check(self, files: dict[str, int]) -> None:
        """Looks at the size of every file.

        Raises:
            DataError: one is missing or has another size.
        """
        for name, size in files.items():
            path = Path(self.location, name)
            try:
                found = path.stat().st_size
            except OSError as error:
                raise _unreadable(path, error) from None
            if found != size:
                raise DataError(
                    f"{path} is damaged: it has {found} bytes, the manifest says {size}; "
                    "restore the file or prepare the data again"
                )

    def check_room(self, largest_files: int) -> None:
        """Does nothing: the files are here."""


def _unreadable(path: Path, error: OSError) -> MissingFileError:
    return MissingFileError(f"{path} cannot be read ({error.strerror}): restore the file or prepare the data again")
