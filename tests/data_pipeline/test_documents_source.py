import gzip
import json
import lzma
import os
from itertools import pairwise
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.sources import documents
from data_pipeline.sources.documents import TextDocument, find_documents, read_documents
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading


def documents_of(source: Path, *, field: str = "text", quarantine: Quarantine | None = None) -> list[TextDocument]:
    files = find_documents(source)
    return list(read_documents(files, DocumentReader(files), Reading((field,)), quarantine=quarantine or Quarantine(0)))


def json_lines(*values: object) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def test_a_folder_of_all_kinds_gives_every_document_once_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "plain.txt").write_text("a plain text\nof two lines")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / ".hidden").write_text("not read")
    (tmp_path / "lines.jsonl").write_bytes(json_lines({"text": "one"}, {"text": ["two", "lines"], "id": 7}))
    (tmp_path / "packed.jsonl.xz").write_bytes(lzma.compress(json_lines({"text": "three"})))
    (tmp_path / "packed.ndjson.gz").write_bytes(gzip.compress(json_lines({"text": "four"}) + b"\n"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["five", "six"], "other": [1, 2]}), tmp_path / "rows.parquet")
    found = {document.name.removeprefix(f"{tmp_path}/"): document.text for document in documents_of(tmp_path)}
    assert found == {
        "below/plain.txt": "a plain text\nof two lines",
        "lines.jsonl:1": "one",
        "lines.jsonl:2": "two\nlines",
        "packed.jsonl.xz:1": "three",
        "packed.ndjson.gz:1": "four",
        "rows.parquet:1": "five",
        "rows.parquet:2": "six",
    }


def test_the_order_of_documents_is_shuffled_by_file_and_fixed(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text(str(number))
    texts = [document.text for document in documents_of(tmp_path)]
    assert texts == [document.text for document in documents_of(tmp_path)]
    assert texts != sorted(texts)


def test_broken_lines_are_named_and_more_than_the_bound_stop_the_run(tmp_path: Path) -> None:
    lines = [
        json_lines({"text": "good"}),
        b'{"text": "cut of\n',
        b"[]\n",
        json_lines({"body": "x"}),
        json_lines({"text": 5}),
    ]
    (tmp_path / "broken.jsonl").write_bytes(b"".join(lines) + json_lines({"text": "\ud800 good"}))
    quarantine = Quarantine(limit=4)
    assert [document.text for document in documents_of(tmp_path, quarantine=quarantine)] == [
        "good",
        "\ufffd\ufffd\ufffd good",
    ]
    assert [name.rpartition(":")[2] for name, _ in quarantine.items()] == ["2", "3", "4", "5"]
    with pytest.raises(
        DataError, match=r"broken\.jsonl:5 is damaged: .* 4 damaged samples are more than the 3 allowed"
    ):
        documents_of(tmp_path, quarantine=Quarantine(limit=3))


def test_a_column_that_is_not_there_and_a_damaged_file_get_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"title": ["one"], "body": ["text"]}), file)
    with pytest.raises(DataError, match=r"rows\.parquet has no column text: name one of title, body"):
        documents_of(tmp_path)
    assert [document.text for document in documents_of(tmp_path, field="body")] == ["text"]
    os.truncate(file, 40)
    with pytest.raises(DataError, match=r"rows\.parquet is damaged"):
        documents_of(tmp_path)


@given(st.text(alphabet="ab \nü", max_size=200))
def test_long_documents_are_cut_between_words_and_nothing_is_lost(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONGEST_DOCUMENT", 20)
        parts = list(documents._parts(text))
    assert "".join(parts) == text
    assert all(len(part) <= 20 for part in parts)
    for left, right in pairwise(parts):
        assert len(left) == 20 or left.endswith("\n") or right.startswith(" ")


def test_a_long_text_file_is_read_in_bounded_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 1_000)
    text = "Grüße an alle. " * 100_000
    (tmp_path / "long.txt").write_text(text)
    found = documents_of(tmp_path)
    assert "".join(document.text for document in found) == text
    assert max(len(document.text) for document in found) <= 1_000
