"""python_library: the English that every Python installation carries, a corpus that needs no download.

Made of the language reference's topics and of the standard library's modules with their docstrings and comments (no
tests, no tables of character sets). About 6 MB. It differs a little between Python versions; for one version it is the
same on every machine.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics as topics_by_name

from data_pipeline.errors import DataError
from data_pipeline.sources import Source
from data_pipeline.sources.files import Document, DocumentReader, shuffle_key
from data_pipeline.sources.quarantine import Quarantine

_MODULE_BYTES = 5_500_000
_NOT_ENGLISH = {"site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data"}
# Some systems leave these out of a plain installation.
_NOT_EVERYWHERE = {"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo", "turtle.py", "venv"}


def _find_files(source: Path | None) -> list[Path]:
    if source is not None:
        raise DataError("recipe python_library takes no source: it reads the Python it runs in; leave --source out")
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in library.rglob("*.py") if _belongs(file.relative_to(library))]
    files.sort(key=lambda file: shuffle_key(file.relative_to(library).as_posix()))
    chosen, size = [], 0
    for file in files:
        size += file.stat().st_size
        if size > _MODULE_BYTES:
            break
        chosen.append(file)
    if not chosen:
        raise DataError(f"no standard library sources in {library}: use another Python, or the recipe text")
    return chosen


def _belongs(file: Path) -> bool:
    machine_specific = file.name.startswith("_sysconfigdata") or file.parts[0].startswith("config-")
    return not machine_specific and (_NOT_ENGLISH | _NOT_EVERYWHERE).isdisjoint(file.parts)


def _read(files: list[Path], reader: DocumentReader, quarantine: Quarantine) -> Iterator[Document]:
    topics = [_topic(name) for name in sorted(topics_by_name, key=shuffle_key)]
    modules = [(file.stat().st_size, _chunks_of(file, reader)) for file in files]
    yield from _interleaved([topics, modules])


def _topic(name: str) -> tuple[int, Document]:
    content = topics_by_name[name].encode()
    return len(content), iter([content])


def _chunks_of(file: Path, reader: DocumentReader) -> Iterator[bytes]:
    for document in reader.documents(file):
        yield from document


def _interleaved(kinds: list[list[tuple[int, Document]]]) -> Iterator[Document]:
    """Mixes the kinds so that every stretch, the evaluation splits at the end too, has all in the same proportion."""
    placed = []
    for kind in kinds:
        total = sum(size for size, _ in kind)
        passed = 0
        for size, document in kind:
            placed.append(((passed + size / 2) / total, document))
            passed += size
    placed.sort(key=lambda pair: pair[0])
    return (document for _, document in placed)


SOURCE = Source(name="python_library", version=1, find_files=_find_files, read=_read, symbols=bytes(range(256)))
