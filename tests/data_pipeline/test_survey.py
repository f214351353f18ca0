"""Claims about the look at documents before they are prepared: fields, lengths, number, languages, damage."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline.errors import DataError
from data_pipeline.prepare.survey import BYTES_PER_TOKEN, COUNTED, survey_documents, survey_summaries
from data_pipeline.tokenizers.subword import train_tokenizer


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_field_with_the_most_text_is_found_and_tokens_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    texts = ["a few words " * count for count in (5, 1, 3)]
    file = write_lines(
        tmp_path / "some.jsonl",
        [{"id": str(number), "year": 2_000, "body": text} for number, text in enumerate(texts)],
    )
    tokenizer = train_tokenizer(texts, vocabulary_size=270)
    survey = survey_documents(file, tokenizer)
    assert (survey.kind, survey.fields, survey.documents, survey.damaged) == ("json lines", "body", 3, 0)
    assert survey.lengths.tolist() == sorted(len(tokens) for tokens in tokenizer.encode_batch(texts))
    assert survey.tokens == survey.lengths.sum()
    assert survey_documents(file, None).lengths[-1] == -(-len(texts[0]) // BYTES_PER_TOKEN)


def test_columns_of_parquet_are_looked_at_too(tmp_path: Path) -> None:
    table = pyarrow.table({"title": ["one", "two"], "article": ["text of it", "more text"], "year": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    survey = survey_documents(tmp_path / "rows.parquet", None)
    assert (survey.kind, survey.fields, survey.documents) == ("parquet", "article", 2)
    assert survey_summaries(tmp_path / "rows.parquet", None).fields == "document=article,summary=title"


def test_languages_are_guessed_and_told_with_their_shares_of_the_documents(tmp_path: Path) -> None:
    texts = ["Der Patient wurde am Montag nach Hause entlassen.", "患者は月曜日に退院した。"]
    texts += ["The patient was discharged on Monday, and came back on Friday."] * 2
    file = write_lines(tmp_path / "some.jsonl", [{"text": text} for text in texts])
    assert survey_documents(file, None).languages == (("en", 0.5), ("de", 0.25), ("ja", 0.25))
    assert survey_documents(write_lines(file, [{"text": "ACGTACGTTAGACCA" * 9}]), None).languages == (("und", 1.0),)


def test_many_documents_are_estimated_from_some_with_the_lines_that_cannot_be_read(tmp_path: Path) -> None:
    words = "word " * 200
    lines = [json.dumps({"text": words}) if number % 10 else "{" for number in range(5 * COUNTED)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    survey = survey_documents(tmp_path, None)
    assert survey.documents == pytest.approx(0.9 * len(lines), rel=0.25)
    assert survey.damaged == pytest.approx(0.1 * len(lines), rel=0.25)


@pytest.mark.parametrize(
    ("record", "layout"),
    [
        ({"id": 7, "text": "long " * 9, "highlights": "short"}, "document=text,summary=highlights"),
        ({"id": "7", "a": "long " * 9, "b": "short"}, "identifier=id,document=a,summary=b"),
        (
            {"question": "why?", "story": "long " * 9, "abstract": "because"},
            "query=question,document=story,summary=abstract",
        ),
        ({"article_id": "7", "article_text": ["long"], "abstract_text": ["<S> short </S>"]}, "scientific_papers"),
    ],
)
def test_documents_and_summaries_are_told_apart_by_names_and_lengths(
    record: dict[str, Any], layout: str, tmp_path: Path
) -> None:
    survey = survey_summaries(write_lines(tmp_path / "some.jsonl", [record] * 3), None)
    assert sorted(survey.fields.split(",")) == sorted(layout.split(","))
    assert len(survey.lengths) == len(survey.summary_lengths) == 3


@pytest.mark.parametrize(
    ("look", "record", "sentence"),
    [
        (survey_documents, {"id": 7, "tags": [1]}, r"no field of text; it has id \(int\), tags \(list\)"),
        (survey_summaries, {"id": "7", "body": "text"}, r"no two fields .* it has id \(str\), body \(str\)"),
        (survey_documents, ["text"], "holds no JSON objects in its first"),
    ],
)
def test_documents_without_text_are_refused_with_the_fields_there_are(
    look: Any, record: Any, sentence: str, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "some.jsonl", [record])
    with pytest.raises(DataError, match=sentence):
        look(file, None)
    with pytest.raises(DataError, match="does not exist"):
        look(tmp_path / "absent", None)


def test_what_looks_wrong_is_told(tmp_path: Path) -> None:
    record = {"text": "long words " * 40, "summary": "short"}
    assert survey_summaries(write_lines(tmp_path / "good.jsonl", [record] * 20), None).notes == ()
    (note,) = survey_summaries(
        write_lines(tmp_path / "lists.jsonl", [record | {"summary": ["a", "b"]}] * 3), None
    ).notes
    assert "3 documents have 6 summaries, for their field is a list" in note
    (note,) = survey_summaries(
        write_lines(tmp_path / "alike.jsonl", [record | {"summary": record["text"]}] * 3), None
    ).notes
    assert "at least half as long as their documents" in note
    survey = survey_documents(write_lines(tmp_path / "damaged.jsonl", [record, *["x"] * 3]), None)
    (note,) = survey.notes
    assert "3 of 4 records cannot be read, and the run file allows none; the first is" in note
    assert survey.damaged_allowed == 0
    assert survey_documents(write_lines(tmp_path / "good.jsonl", [record] * 99 + ["x"]), None).damaged_allowed == 2


def test_splits_that_names_tell_of_are_counted(tmp_path: Path) -> None:
    record = {"text": "long words " * 4, "summary": "short"}
    write_lines(tmp_path / "test.jsonl", [record] * 7)
    with pytest.raises(DataError, match="holds no training documents: its names tell only of test"):
        survey_summaries(tmp_path, None)
    write_lines(tmp_path / "train.jsonl", [record] * 40)
    assert survey_summaries(tmp_path, None).splits == {"train": 38, "validation": 2, "test": 7}
    write_lines(tmp_path / "dev.jsonl", [record] * 3)
    write_lines(tmp_path / "train.jsonl", [record] * COUNTED)
    estimated = survey_summaries(tmp_path, None).splits
    shares = [count / sum(estimated.values()) for count in estimated.values()]
    assert shares == pytest.approx([count / (COUNTED + 10) for count in (COUNTED, 3, 7)], rel=0.1)
