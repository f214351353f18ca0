import hashlib
import lzma
import os
import shutil
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream
from tests.data_pipeline.preparing import prepare_characters


def text_of(prepared: PreparedData, split: str) -> bytes:
    stream = TokenStream(prepared.split(split))
    return prepared.vocabulary.decode_bytes(stream.read(0, len(stream)))


def contents(prepared: PreparedData) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(prepared.location).iterdir()}


def not_to_be_called(done: int, total: int) -> None:
    raise AssertionError("the source was read again")


def test_whole_enwik8_gets_the_published_split_and_205_symbols(test_data: Path, tmp_path: Path) -> None:
    prepared = prepare_characters("enwik8", source=test_data / "enwik8" / "enwik8.xz", output=tmp_path / "out")
    assert {name: prepared.tokens(name) for name in prepared.manifest.splits} == {
        "train": 90_000_000,
        "validation": 5_000_000,
        "test": 5_000_000,
    }
    assert len(prepared.vocabulary) == 205
    assert prepared.manifest.corpus.split_rule.startswith("the published split")
    digest = hashlib.md5(usedforsecurity=False)
    for split in prepared.manifest.splits:
        digest.update(text_of(prepared, split))
    assert digest.hexdigest() == "a1fa5ffddb56f4953e226637dabbb36a"


def test_part_of_enwik8_is_split_by_percent_and_says_so(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "enwik8" / "enwik8.xz"
    prepared = prepare_characters("enwik8", source=source, output=tmp_path / "out", limit_bytes=200_000)
    with lzma.open(source) as file:
        expected = file.read(200_000)
    assert text_of(prepared, "train") == expected[:180_000]
    assert text_of(prepared, "validation") == expected[180_000:190_000]
    assert text_of(prepared, "test") == expected[190_000:]
    assert bytes(prepared.vocabulary.symbols) == bytes(sorted(set(expected)))
    assert "not the published split" in prepared.manifest.corpus.split_rule


def test_text8_from_xml_and_from_cleaned_text_are_the_same_data(test_data: Path, tmp_path: Path) -> None:
    cleaned = test_data / "text8_check" / "first_1000000.txt.xz"
    wikipedia = test_data / "enwik8" / "enwik8.xz"
    one = prepare_characters("text8", source=cleaned, output=tmp_path / "one", limit_bytes=900_000)
    other = prepare_characters("text8", source=wikipedia, output=tmp_path / "other", limit_bytes=900_000)
    assert one.fingerprint == other.fingerprint
    assert len(one.vocabulary) == 27


def test_python_library_is_a_few_million_bytes_of_english(tmp_path: Path) -> None:
    prepared = prepare_characters("python_library", source=None, output=tmp_path / "out")
    assert 3_000_000 < sum(map(prepared.tokens, prepared.manifest.splits)) < 7_000_000
    for split in prepared.manifest.splits:
        text = text_of(prepared, split).lower()
        # Frequent in English prose, rare in code: every split is of the same kind.
        assert 0.005 < text.count(b" the ") * 4 / len(text) < 0.05


def test_folder_is_read_in_an_order_that_only_names_decide(tmp_path: Path) -> None:
    for number in range(100):
        path = tmp_path / "one" / f"part {number % 7}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"document {number} says little\n" * 20)
    (tmp_path / "one" / ".hidden").write_text("never read" * 50)
    (tmp_path / "one" / "picture").write_bytes(bytes(500))
    (tmp_path / "one" / "empty").touch()
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    one = prepare_characters("text", source=tmp_path / "one", output=tmp_path / "out one")
    other = prepare_characters("text", source=tmp_path / "other", output=tmp_path / "out other")
    assert one.fingerprint == other.fingerprint

    documents = [text_of(one, split).strip(b"\0").split(b"\0") for split in ("train", "validation", "test")]
    assert [len(part) for part in documents] == [90, 5, 5]
    together = [document.decode() for part in documents for document in part]
    assert sorted(together) == sorted(f"document {number} says little\n" * 20 for number in range(100))
    assert together != sorted(together)


def test_same_source_gives_the_same_bytes(small_text: Path, prepared_once: PreparedData, tmp_path: Path) -> None:
    again = prepare_characters("text", source=small_text, output=tmp_path / "again")
    assert contents(again) == contents(prepared_once)


def test_unchanged_source_is_not_read_again(small_text: Path, prepared_once: PreparedData) -> None:
    before = contents(prepared_once)
    again = prepare_characters(
        "text", source=small_text, output=Path(prepared_once.location), report_progress=not_to_be_called
    )
    assert again == prepared_once
    assert contents(again) == before


def test_touched_source_is_compared_by_content_and_then_known(
    small_text: Path, prepared_copy: PreparedData, tmp_path: Path
) -> None:
    source = tmp_path / "touched.txt"
    shutil.copy(small_text, source)
    for _ in range(2):
        os.utime(source)
        again = prepare_characters("text", source=source, output=Path(prepared_copy.location))
        assert again.fingerprint == prepared_copy.fingerprint
        prepare_characters("text", source=source, output=Path(prepared_copy.location), report_progress=not_to_be_called)


def test_changed_source_never_replaces_prepared_data(
    small_text: Path, prepared_copy: PreparedData, tmp_path: Path
) -> None:
    before = contents(prepared_copy)
    changed = tmp_path / "changed.txt"
    changed.write_bytes(small_text.read_bytes().replace(b"long", b"wide", 1))
    with pytest.raises(DataError, match="was prepared from other text than the source holds now"):
        prepare_characters("text", source=changed, output=Path(prepared_copy.location))
    with pytest.raises(DataError, match=r"already holds text \(version 1\), not text \(version 1, limit_bytes 500\)"):
        prepare_characters("text", source=small_text, output=Path(prepared_copy.location), limit_bytes=500)
    assert contents(prepared_copy) == before


def test_damaged_prepared_data_is_not_called_up_to_date(small_text: Path, prepared_copy: PreparedData) -> None:
    (Path(prepared_copy.location) / "test-000000.tar").unlink()
    with pytest.raises(DataError, match=r"test-000000\.tar cannot be read \(No such file"):
        prepare_characters("text", source=small_text, output=Path(prepared_copy.location))


def test_output_that_holds_something_else_is_left_alone(small_text: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for output in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(DataError, match="holds something else than prepared data"):
            prepare_characters("text", source=small_text, output=output)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_are_no_text_are_left_out_and_named(small_text: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "some.txt").write_bytes(small_text.read_bytes())
    (source / "picture.png").write_bytes(b"\x89PNG\0\0")
    corpus = prepare_characters("text", source=source, output=tmp_path / "out").manifest.corpus
    assert corpus.left_out == {str(source / "picture.png"): "no text: it holds NUL bytes"}
    assert corpus.left_out_files == 1


def test_empty_output_directory_is_used(small_text: Path, tmp_path: Path) -> None:
    assert prepare_characters("text", source=small_text, output=tmp_path).find_damage() == []


@pytest.mark.parametrize(
    ("recipe", "content", "sentence"),
    [
        ("enwik8", b"Once upon a time. " * 99, "does not begin with <mediawiki; use the recipe text"),
        ("text8", b"no capitals until Here " * 99, r"character b'H' at position 18 is neither a small letter nor"),
        ("text8", b"x" * 1_100_000 + b"!", r"character b'!' at position 1100000 is neither"),
        ("text", b"binary \0\1\2" * 99, "is not text: it holds NUL bytes"),
        (
            "text",
            b"a line of text\n" * 80_000 + b"\0",
            "NUL bytes behind its beginning; remove it",
        ),
        ("text", b"short", "holds only 5 bytes of text"),
        ("text", b"", "is empty"),
        ("text8", None, "does not exist"),
    ],
)
def test_source_that_does_not_fit_gets_one_sentence_and_leaves_nothing(
    recipe: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        prepare_characters(recipe, source=source, output=tmp_path / "out")
    assert [path for path in tmp_path.iterdir() if path != source] == []


@pytest.mark.parametrize(
    ("recipe", "source", "limit", "sentence"),
    [
        ("enwik9", None, None, "did you mean enwik8"),
        ("poems", None, None, "choose one of enwik8, text8, text, python_library"),
        ("text", None, None, "needs a source"),
        ("enwik8", Path(), None, "is not a file"),
        ("python_library", Path(), None, "takes no source"),
        ("python_library", None, 99, "at least 100"),
    ],
)
def test_impossible_request_gets_one_sentence(
    recipe: str, source: Path | None, limit: int | None, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        prepare_characters(recipe, source=source, output=tmp_path / "out", limit_bytes=limit)
    assert not (tmp_path / "out").exists()


def test_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(DataError, match="holds no text files"):
        prepare_characters("text", source=tmp_path / "source", output=tmp_path / "out")
