"""Claims about files as people have them: records under any name and packing, encodings, and what is damaged."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.sources import records
from data_pipeline.sources.corpora import Corpus, RawExample
from data_pipeline.sources.documents import documents
from data_pipeline.sources.files import DocumentReader, source_signature
from data_pipeline.sources.labelled import labelled
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.summaries import summaries

ROWS = [
    {
        "text": f'Line one of {number}, "quoted".\n[Zwei], {{drei}} \u2028 für \\ über',
        "label": f"l{number}",
        "short": "s",
    }
    for number in range(30)
]


def table(delimiter: str) -> bytes:
    written = io.StringIO()
    writer = csv.DictWriter(written, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return written.getvalue().encode()


def parquet_rows() -> bytes:
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), written)
    return written.getvalue()


def zipped(content: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("part", content)
    return written.getvalue()


FORMS: dict[str, bytes] = {
    "json lines": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "array": json.dumps(ROWS).encode(),
    "indented array": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "indented objects": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "csv": table(","),
    "csv with semicolons": table(";"),
    "tsv": table("\t"),
    "json lines with a mark": b"\xef\xbb\xbf" + "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "utf-16 csv": table("\t").decode().encode("utf-16"),
    "parquet": parquet_rows(),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
    ".zip": zipped,
}


def examples(corpus: Corpus, quarantine: Quarantine | None = None) -> list[RawExample]:
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def texts(source: Path, quarantine: Quarantine | None = None, **options: str) -> list[str]:
    return [str(example.texts["text"]) for example in examples(documents(source, **options), quarantine)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "packing"), product(FORMS, PACKINGS))
def test_records_are_the_same_for_every_source_whatever_their_form_packing_and_name(
    form: str, packing: str, tmp_path: Path
) -> None:
    wanted = [row["text"] for row in ROWS]
    for name in (f"c4-00000.json{packing}", "data.txt", "data"):
        file = tmp_path / name
        file.write_bytes(PACKINGS[packing](FORMS[form]))
        assert texts(file) == wanted
        found = examples(labelled(file, texts={"text": "text"}, fields={"label": "label"}))
        assert [(each.texts["text"], each.fields["label"]) for each in found] == [
            (row["text"], row["label"]) for row in ROWS
        ]
        found = examples(summaries(file, "document=text,summary=short"))
        assert [each.texts["document"] for each in found] == wanted


@given(
    st.lists(
        st.recursive(
            st.text() | st.integers() | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
        ).map(lambda each: {"t": each})
    ),
    st.integers(1, 40),
    st.sampled_from([None, 2]),
)
@settings(max_examples=40)
def test_arrays_are_taken_apart_as_json_does_however_they_are_cut(values: list[object], size: int, indent: int) -> None:
    for written in (json.dumps(values, indent=indent), "\n".join(json.dumps(each, indent=indent) for each in values)):
        chunks = (written[start : start + size] for start in range(0, len(written), size))
        assert [record.load() for record in records._json_values("x", chunks, "utf-8", ())] == values


def test_a_damaged_element_of_an_array_spoils_no_other(tmp_path: Path) -> None:
    deep = "[" * 5_000 + "]" * 5_000
    rest = ", ".join(json.dumps({"text": f"t{number}"}) for number in range(3))
    (tmp_path / "a.json").write_text(
        f'[{{"text": "first"}}, {{"text": {deep}}}, {{"text": oops}}, {rest}, {{"text": "cut'
    )
    quarantine = Quarantine(3)
    assert texts(tmp_path, quarantine) == ["first", "t0", "t1", "t2"]
    assert [name.rpartition(":")[2] for name, _ in quarantine.items()] == ["2", "3", "7"]
    assert "nested too deeply" in quarantine.items()[0][1]


@pytest.mark.parametrize("source", ["documents", "labelled", "summaries"])
def test_a_deeply_nested_line_is_a_damaged_record(source: str, tmp_path: Path) -> None:
    file = tmp_path / "deep.jsonl"
    lines = ["[" * 5_000 + "]" * 5_000, '{"a":' * 100_000 + "1" + "}" * 100_000, json.dumps(ROWS[0])]
    file.write_text("\n".join(lines))
    corpus = {
        "documents": lambda: documents(file),
        "labelled": lambda: labelled(file, texts={"text": "text"}, fields={"label": "label"}),
        "summaries": lambda: summaries(file, "document=text,summary=short"),
    }[source]()
    quarantine = Quarantine(2)
    assert len(examples(corpus, quarantine)) == 1
    assert all("nested too deeply" in reason for _, reason in quarantine.items())


def test_what_looks_like_records_but_lacks_the_field_is_refused_and_text_can_be_insisted_on(tmp_path: Path) -> None:
    for name, content in {"a.json": b'[{"body": "x"}]', "b.csv": b"body,id\nx,1\n", "c.txt": FORMS["tsv"]}.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(
            DataError, match=r"no text in the field missing|no column missing.* or insist with --as text"
        ):
            texts(file, field="missing")
        assert texts(file, read_as="text") == [content.decode()]
    (tmp_path / "b.csv").write_text("text,id\nx,1\na, b,2\n")
    with pytest.raises(DataError, match=r"3 cells, the first row 2"):
        texts(tmp_path / "b.csv")


@pytest.mark.parametrize(
    "text",
    [
        "First, second, third.\nHe came, saw, and won.\n" * 20,
        "[[Category: Things]] begins a page of a wiki\n" * 9,
        '{\\rtf1 nothing of JSON}\n[1] A. Author: "Title", 1999\n',
        "[1] A reference\n[2] Another one\n",
        "def f(a, b):\n\treturn a\n\ndef g(a, b):\n\treturn b\n" * 9,
    ],
)
def test_prose_and_programs_stay_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(text)
    assert texts(tmp_path) == [text]


GERMAN = "Der Geschäftsführer sagte, daß die Häuser über den Flüssen größer würden; schöne Grüße aus Köln. " * 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_tell_the_encoding_and_do_not_stay_in_the_text(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_bytes(GERMAN.encode(encoding))
    assert texts(tmp_path) == [GERMAN]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_named_with_what_they_look_like_and_the_key_that_reads_them(
    encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "old.txt").write_bytes(GERMAN.encode(encoding))
    (tmp_path / "new.txt").write_text(GERMAN, encoding="utf-8")
    quarantine = Quarantine(1)
    assert texts(tmp_path, quarantine) == [GERMAN]
    ((name, reason),) = quarantine.items()
    assert name == f"{tmp_path / 'old.txt'}"
    assert "looks like " in reason
    assert "--encoding " in reason
    assert texts(tmp_path, encoding=encoding) == [GERMAN, GERMAN]
    with pytest.raises(DataError, match="encoding latin-99 is not known"):
        texts(tmp_path, encoding="latin-99")


@pytest.mark.parametrize("form", ["json lines", "csv", "array"])
def test_records_that_are_not_utf8_are_damaged_one_by_one(form: str, tmp_path: Path) -> None:
    content = {
        "json lines": '{"text": "good"}\n{"text": "für"}\n{"text": "bad"}\n',
        "csv": "text,id\ngood,1\nfür,2\nbad,3\n",
        "array": '[{"text": "good"}, {"text": "für"}, {"text": "bad"}]',
    }[form]
    (tmp_path / "some").write_bytes(content.encode("cp1252"))
    quarantine = Quarantine(1)
    assert texts(tmp_path, quarantine) == ["good", "bad"]
    assert "it is not UTF-8" in quarantine.items()[0][1]
    assert texts(tmp_path, encoding="cp1252") == ["good", "für", "bad"]


@pytest.mark.parametrize(
    ("name", "content", "kept", "reasons"),
    [
        ("a.jsonl", '"text"\n[1]\n{"text": "t"}\n', ["t"], ["no object but str", "no object but list"]),
        ("a.jsonl", '{"text": "t", "n": ' + "9" * 5_000 + '}\n{"body": 1}\n', [], ["a number of more", "only body"]),
        # A quote that no other follows would swallow the rows behind it.
        ("a.csv", 'text,id\n"a" b,1\nt,2\n"c,3\nd,4\n', ["t"], ["quotes of the row", "quotes of the row"]),
        ("a.csv", 'text,id\na,1,2\nb\n"t\r\nu",3\n', ["t\r\nu"], ["3 cells", "1 cells"]),
        ("a.csv", f"text,id\n{'t' * 2_000_000},1\nn\0,1\n", ["t" * 2_000_000], ["NUL bytes"]),
        ("a.csv", "text,id\nn\0,1\nt,2\n", [], ["NUL bytes"]),
        ("a.txt", "a line\n" * 200_000 + "\0", [], ["NUL bytes"]),
    ],
)
def test_what_is_no_record_is_named_with_the_reason_and_swallows_no_other(
    name: str, content: str, kept: list[str], reasons: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    quarantine = Quarantine(2)
    assert texts(tmp_path / name, quarantine) == kept
    for (_, found), reason in zip(quarantine.items(), reasons, strict=True):
        assert reason in found


@pytest.mark.parametrize("packing", ["", ".gz", ".zip"])
def test_a_long_text_that_is_damaged_far_behind_its_beginning_is_damaged_as_a_whole(
    packing: str, tmp_path: Path
) -> None:
    file = tmp_path / f"long.txt{packing}"
    line = b"A line of plain letters, as most lines of most texts are, and long enough.\n"
    file.write_bytes(PACKINGS[packing](line * 60_000 + GERMAN.encode("cp1252") * 100 + line))
    quarantine = Quarantine(1)
    assert texts(file, quarantine) == []
    ((name, reason),) = quarantine.items()
    assert name == str(file)
    assert "it is not UTF-8 but looks like cp" in reason
    file.write_bytes(PACKINGS[packing](line * 60_000))
    assert "".join(texts(file)) == (line * 60_000).decode()


def test_two_columns_of_the_name_asked_for_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id,text\na,1,b\n")
    with pytest.raises(DataError, match=r"a.csv has 2 columns text: rename all but one"):
        texts(tmp_path)
    (tmp_path / "a.csv").write_text("text,id,id\na,1,b\n")
    assert texts(tmp_path) == ["a"]


def test_numbers_that_no_json_holds_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "t", "label": NaN}\n{"text": "t", "label": [1, 1e999]}\n')
    quarantine = Quarantine(2)
    assert examples(labelled(tmp_path, texts={"text": "text"}, fields={"label": "label"}), quarantine) == []
    assert ["number nan" in reason or "number inf" in reason for _, reason in quarantine.items()] == [True, True]


def test_a_zip_is_read_like_the_folder_that_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "data.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data/train.jsonl", "data/test.jsonl"):
            archive.writestr(name, json.dumps(ROWS[0] | {"text": name}) + "\n")
        archive.writestr("data/README.md", "About the data.")
        for name in ("__MACOSX/data/._train.jsonl", "data/.DS_Store"):
            archive.writestr(name, b"\0\5\x16\7")
    for corpus in (
        labelled(file, texts={"document": "text"}, fields={"label": "label"}),
        summaries(file, "document=text,summary=short"),
    ):
        quarantine = Quarantine(0)
        found = {each.split: each.texts["document"] for each in examples(corpus, quarantine)}
        assert found == {"train": "data/train.jsonl", "test": "data/test.jsonl"}
        assert list(quarantine.left_out) == [f"{file}/data/README.md"]
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("imdb/good/1.txt", "imdb/bad/2.txt"):
            archive.writestr(name, name)
    found = {str(each.fields["label"]): each.texts["text"] for each in examples(labelled(file, texts={}, fields={}))}
    assert found == {"good": "imdb/good/1.txt", "bad": "imdb/bad/2.txt"}


def test_splits_that_no_name_tells_of_are_drawn_from_the_training_records(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(ROWS[0]) + "\n" for _ in range(100)))
    for named, drawn in ((set(), {"validation", "test"}), ({"dev"}, {"test"}), ({"dev", "test"}, set())):
        for name in named:
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
        for corpus in (
            labelled(tmp_path, texts={"text": "text"}, fields={"label": "label"}),
            summaries(tmp_path, "document=text,summary=short"),
        ):
            splits = Counter(each.split for each in examples(corpus))
            assert splits.pop("train") == 100 - 5 * len(drawn)
            assert splits == {split: 5 if split in drawn else 1 for split in ("validation", "test")}
            assert all((f"one is for {split}" in corpus.split_rule()) == (split in drawn) for split in splits)


def test_labelled_texts_are_records_or_text_files_but_not_both(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(FORMS["json lines"])
    (tmp_path / "README.md").write_text("About the data.")
    with pytest.raises(DataError, match=r"README.md is text, but .*a.jsonl holds records: keep either"):
        examples(labelled(tmp_path, texts={"text": "text"}, fields={"label": "label"}))


def test_links_are_followed_unless_they_lead_nowhere_or_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("b")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("a")
    (source / "linked").symlink_to("../elsewhere")
    (source / "circle").symlink_to(".")
    assert sorted(texts(source)) == ["a", "b"]
    (source / "lost.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"lost.txt is a link that leads nowhere"):
        documents(source)


def test_a_file_that_disappears_is_named(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("some text")
    corpus = documents(tmp_path)
    reader = DocumentReader(corpus.files)
    corpus.files[1].unlink()
    for look in (
        lambda: list(corpus.read(reader, Quarantine(0))),
        lambda: DocumentReader(corpus.files),
        lambda: source_signature(corpus.files),
    ):
        with pytest.raises(DataError, match=r"[ab].txt cannot be read: No such file"):
            look()


def test_files_that_are_no_part_of_the_data_are_named(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "some.txt").write_text("text")
    quarantine = Quarantine(0)
    assert texts(tmp_path, quarantine) == ["text"]
    assert list(quarantine.left_out) == [str(tmp_path / "picture.png")]
    for name in ("train.jsonl", "extra.jsonl"):
        (tmp_path / "split" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "split" / name).write_bytes(FORMS["json lines"])
    assert len(examples(summaries(tmp_path / "split", "document=text,summary=short"), quarantine)) == 30
    assert str(tmp_path / "split" / "extra.jsonl") in quarantine.left_out
