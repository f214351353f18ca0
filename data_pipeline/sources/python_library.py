"""python_library: the English that every Python installation carries, a corpus that needs no download.

Made of the language reference's topics, the docstrings of the built-in modules, and the standard library's modules
with their docstrings and comments (no tests, no tables of character sets). About 6 MB; it differs a little between
Python versions, and is the same on every machine with the same version.
"""

import importlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics as topics_by_name
from types import BuiltinFunctionType, ModuleType

from data_pipeline.documents import Document, DocumentReader, shuffle_key
from data_pipeline.errors import DataError
from data_pipeline.sources import Source

_MODULE_BYTES = 5_400_000
_NOT_ENGLISH = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "lib2to3"}


def _find_files(source: Path | None) -> list[Path]:
    if source is not None:
        raise DataError("recipe python_library takes no source: it reads the Python it runs in; leave --source out")
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in library.rglob("*.py") if _is_english(file.relative_to(library))]
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


def _is_english(file: Path) -> bool:
    machine_specific = file.name.startswith("_sysconfigdata") or file.parts[0].startswith("config-")
    return not machine_specific and _NOT_ENGLISH.isdisjoint(file.parts)


def _read(files: list[Path], reader: DocumentReader) -> Iterator[Document]:
    topics = [_document(f"topics/{name}", text) for name, text in topics_by_name.items()]
    built_in = [_document(f"built-in/{name}", text) for name, text in _built_in_docstrings()]
    for kind in (topics, built_in):
        kind.sort(key=lambda sized: shuffle_key(sized[1].name))
    modules = [(file.stat().st_size, Document(file.name, _chunks_of(file, reader))) for file in files]
    yield from _interleaved([topics, built_in, modules])


def _document(name: str, text: str) -> tuple[int, Document]:
    content = text.encode()
    return len(content), Document(name, iter([content]))


def _chunks_of(file: Path, reader: DocumentReader) -> Iterator[bytes]:
    for document in reader.documents(file, file.name):
        yield from document.chunks


def _interleaved(kinds: list[list[tuple[int, Document]]]) -> Iterator[Document]:
    """Mix the kinds so that every stretch, the held-out end too, holds each in the same proportion."""
    placed = []
    for kind in kinds:
        total = sum(size for size, _ in kind)
        passed = 0
        for size, document in kind:
            placed.append(((passed + size / 2) / total, document))
            passed += size
    placed.sort(key=lambda pair: pair[0])
    return (document for _, document in placed)


def _built_in_docstrings() -> Iterator[tuple[str, str]]:
    """Yield (module, its public docstrings) of the modules that have no Python source."""
    seen: set[str] = set()
    for name in sorted(sys.builtin_module_names):
        module = importlib.import_module(name)
        fresh = [line for line in _docstrings_of(module) if line not in seen]
        seen.update(fresh)
        if fresh:
            yield name, "\n\n".join(fresh)


def _docstrings_of(module: ModuleType) -> Iterator[str]:
    if module.__doc__:
        yield module.__doc__
    for name, value in sorted(vars(module).items()):
        if isinstance(value, BuiltinFunctionType | type) and not name.startswith("_"):
            members = sorted(vars(value).items()) if isinstance(value, type) else []
            for part, documented in [(name, value), *((f"{name}.{member}", inner) for member, inner in members)]:
                text = documented.__doc__
                if isinstance(text, str) and "._" not in part:
                    yield f"{part}: {text}"


SOURCE = Source(name="python_library", version=1, find_files=_find_files, read=_read, symbols=bytes(range(256)))
