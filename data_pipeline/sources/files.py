"""Read files as documents, plain or inside .xz, .gz, .bz2, .zst or .zip, as a stream of chunks.

Memory does not grow with the file.

The compression is recognised by the first bytes, not by the name.
"""

import bz2
import gzip
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from data_pipeline.errors import DataError

CHUNK_BYTES = 1 << 20

ReportProgress = Callable[[int, int], None]
"""Called as report_progress(done_bytes, total_bytes); both count the source as it is stored."""

Document = Iterator[bytes]
"""A piece of text that belongs together, in chunks; can be read once, and before the next document is asked for."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class DocumentReader:
    """Opens the files of one source, one after the other, `passes` times, and reports how far it has come."""

    def __init__(self, files: list[Path], report_progress: ReportProgress | None = None, *, passes: int = 1) -> None:
        self._total = passes * sum(map(_size, files))
        self._done = 0
        self._report = report_progress or (lambda done, total: None)

    def documents(self, path: Path) -> Iterator[Document]:
        """Yields the document `path` holds; of a .zip all that is not hidden, in shuffled but fixed order.

        Raises:
            DataError: the file is missing, cannot be read, is damaged or ends too early (while chunks are read).
        """
        for _, document in self.named_documents(path):
            yield document

    def named_documents(self, path: Path) -> Iterator[tuple[str, Document]]:
        """Yields the documents with their names: that of the file, and behind it, of several in a .zip, their own."""
        with _failures_as_sentence(path), path.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            if magic == b"\xfd7zXZ\0":
                with lzma.open(file) as stream:
                    yield str(path), self._chunks(path, file, stream)
            elif magic[:2] == b"\x1f\x8b":
                with gzip.open(file) as stream:
                    yield str(path), self._chunks(path, file, stream)
            elif magic[:3] == b"BZh":
                with bz2.open(file) as stream:
                    yield str(path), self._chunks(path, file, stream)
            elif magic[:4] == b"\x28\xb5\x2f\xfd":
                yield str(path), self._chunks(path, file, _zstandard(file))
            elif magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                with zipfile.ZipFile(file) as archive:
                    for name, entry in _visible_entries(path, archive):
                        with archive.open(entry) as stored:
                            yield name, self._chunks(path, file, stored)
            else:
                yield str(path), self._chunks(path, file, file)
        self.finished(path)

    def finished(self, path: Path) -> None:
        """Counts a file as read; `documents` does so by itself."""
        self._done += _size(path)
        self._report(self._done, self._total)

    def only_document(self, path: Path) -> Iterator[Document]:
        """Yields the one document that `path` holds.

        Raises:
            DataError: also when it is a .zip that does not hold exactly one file.
        """
        if _is_zip(path) and len(names := names_inside(path)) != 1:
            raise DataError(f"{path} holds {len(names)} files, this recipe needs exactly one: give the file itself")
        yield from self.documents(path)

    def _chunks(self, path: Path, file: IO[bytes], stream: _Readable) -> Iterator[bytes]:
        with _failures_as_sentence(path):
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
                self._report(self._done + file.tell(), self._total)


def names_inside(path: Path) -> list[str]:
    """Returns the names of what is inside a .zip, as `DocumentReader.named_documents` gives them.

    Raises:
        DataError: it cannot be read.
    """
    with _failures_as_sentence(path), zipfile.ZipFile(path) as archive:
        return [name for name, _ in _visible_entries(path, archive)]


def _visible_entries(path: Path, archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """Returns the files inside that are not hidden, nor macOS's notes about others, in shuffled but fixed order."""
    entries = [
        entry
        for entry in archive.infolist()
        if not entry.is_dir()
        and not any(part.startswith(".") or part == "__MACOSX" for part in entry.filename.split("/"))
    ]
    entries.sort(key=lambda entry: shuffle_key(entry.filename))
    return [(f"{path}/{entry.filename}" if len(entries) > 1 else str(path), entry) for entry in entries]


def _size(path: Path) -> int:
    with _failures_as_sentence(path):
        return path.stat().st_size


def _zstandard(file: IO[bytes]) -> _Readable:
    """Returns what a file packed as .zst holds; Python has no reader of its own before 3.14."""
    import pyarrow  # takes a third of a second

    stream: _Readable = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
    return stream


def shuffle_key(name: str) -> bytes:
    """Returns a sort key that scatters names over the whole order, the same on every machine.

    Documents are ordered by it so that the end of a corpus, used for evaluation, is a fair sample, not its last folder.
    """
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def source_signature(files: list[Path]) -> str:
    """Returns a SHA-256 over the files' names, sizes and times of change: equal means unchanged, as make has it."""
    digest = hashlib.sha256()
    for file in files:
        with _failures_as_sentence(file):
            facts = file.stat()
        digest.update(f"{file.absolute()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def existing_file(source: Path | None, *, recipe: str, expects: str) -> Path:
    """Returns `source` when it is a file that holds something.

    Raises:
        DataError: it is not given, missing, a folder or empty.
    """
    if source is None:
        raise DataError(f"recipe {recipe} needs a source: give --source with {expects}")
    with _failures_as_sentence(source):
        if not source.exists():
            raise DataError(f"source {source} does not exist: recipe {recipe} expects {expects}")
        if not source.is_file():
            raise DataError(f"source {source} is not a file: recipe {recipe} expects {expects}")
        if source.stat().st_size == 0:
            raise DataError(f"source {source} is empty: recipe {recipe} expects {expects}")
    return source


def _is_zip(path: Path) -> bool:
    with _failures_as_sentence(path):
        return zipfile.is_zipfile(path)


@contextmanager
def _failures_as_sentence(path: Path) -> Iterator[None]:
    """Turns what the decompressors and the file system raise into one sentence that names the file."""
    try:
        yield
    except EOFError:
        raise DataError(f"{path} is truncated: it ends before its compressed data does; fetch it again") from None
    except (lzma.LZMAError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again") from None
    except RuntimeError as error:  # zipfile's way of saying that an entry is encrypted
        raise DataError(f"{path} cannot be read ({error}); unpack it first") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
