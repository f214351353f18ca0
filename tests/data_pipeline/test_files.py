import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.sources.files import CHUNK_BYTES, DocumentReader

TEXT = b"".join(b"line %d of a text that does not fit in one chunk\n" % number for number in range(60_000))


def zipped(text: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text", text)


WRITERS: dict[str, Callable[[bytes, Path], object]] = {
    "plain": lambda text, path: path.write_bytes(text),
    "xz": lambda text, path: path.write_bytes(lzma.compress(text, preset=0)),
    "gzip": lambda text, path: path.write_bytes(gzip.compress(text)),
    "two gzip files in one": lambda text, path: path.write_bytes(gzip.compress(text[:999]) + gzip.compress(text[999:])),
    "zip": zipped,
}


def read_all(path: Path) -> list[bytes]:
    return [b"".join(document) for document in DocumentReader([path]).documents(path)]


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_same_text_whatever_its_name(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.name.that.says.nothing"
    WRITERS[form](TEXT, path)
    assert read_all(path) == [TEXT]


@pytest.mark.parametrize("form", ["xz", "gzip", "zip"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated_archive_is_named(form: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    WRITERS[form](TEXT, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataError, match=r"archive is (truncated|damaged).*fetch it again"):
        read_all(path)


@pytest.mark.parametrize("form", ["xz", "gzip", "zip"])
def test_damaged_archive_is_named(form: str, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    WRITERS[form](TEXT, path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"archive is damaged"):
        read_all(path)


def test_zip_of_several_files_is_several_documents_or_refused_where_one_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "several.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("folder")
        for name in ("folder/a", "b", "c"):
            archive.writestr(name, f"text of {name}")
    assert sorted(read_all(path)) == [b"text of b", b"text of c", b"text of folder/a"]
    with pytest.raises(DataError, match="holds 3 files, this recipe needs exactly one"):
        list(DocumentReader([path]).only_document(path))


def test_reading_reports_stored_bytes_up_to_the_total(tmp_path: Path) -> None:
    files = [tmp_path / form for form in WRITERS]
    for file in files:
        WRITERS[file.name](TEXT, file)
    total = sum(file.stat().st_size for file in files)
    reports: list[tuple[int, int]] = []
    reader = DocumentReader(files, lambda done, whole: reports.append((done, whole)))
    for file in files:
        for document in reader.documents(file):
            assert all(len(chunk) <= CHUNK_BYTES for chunk in document)
    done = [report[0] for report in reports]
    assert done == sorted(done)
    assert reports[-1] == (total, total)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere cannot be read: No such file"):
        list(DocumentReader([]).documents(tmp_path / "nowhere"))
