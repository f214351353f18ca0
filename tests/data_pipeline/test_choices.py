"""Texts with choices: read from every form, what is right told without guessing, and encoded as transformers does."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.choices import ChoiceSequences
from data_pipeline.sources.choices import multiple_choice, right_choice
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labels import LabelError
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.subword import TextTokenizer
from longformer.interop.tokenizer import tokenizer_content
from tests.interop.tokenizer_folders import byte_level, word_pieces

FIELDS = {"context": "context", "question": "question", "choices": "choices", "label": "label"}
GOOD = {"context": "A b c.", "question": "What?", "choices": ["a", "b"], "label": "b"}


def read_all(source: Path, quarantine: Quarantine | None = None, **named: Any) -> list[RawExample]:
    corpus = multiple_choice(source, **(FIELDS | named))
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def test_a_question_stands_beside_every_choice_whatever_the_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(GOOD) + "\n")
    with (tmp_path / "test.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["context", "question", "choices", "label"])
        rows.writeheader()
        rows.writerow({**GOOD, "choices": json.dumps(["a", "b", "c"]), "label": "C"})
    train, test = sorted(read_all(tmp_path), key=lambda example: len(example.texts))
    assert train.texts == {"text": "A b c.", "choice_0": "What? a", "choice_1": "What? b"}
    assert (train.fields, train.split) == ({"label": 1, "choices": ["a", "b"], "question": "What?"}, "train")
    assert (test.texts["choice_2"], test.fields["label"], test.split) == ("What? c", 2, "test")

    (tmp_path / "columns.csv").write_text("sent,ending0,ending1,right\nIt,ran,fell,1\n")
    named = {"context": None, "question": "sent", "choices": ("ending0", "ending1"), "label": "right"}
    (found,) = read_all(tmp_path / "columns.csv", **named, label_as="number_from_0")
    assert found.texts == {"text": "It", "choice_0": "ran", "choice_1": "fell"}
    assert found.fields["label"] == 1


@pytest.mark.parametrize(
    ("label", "choices", "label_as", "found"),
    [
        ("b", ["Ann", "Bob"], None, 1),
        ("Bob ", ["Ann", "Bob"], None, 1),
        (20, ["10", "20"], None, 1),
        (1, ["Ann", "Bob"], "number_from_0", 1),
        ("1", ["2", "1"], "number_from_1", 0),
        ("1", ["2", "1"], "text", 1),
        ("A", ["B", "A"], "letter", 0),
        (1, ["Ann", "Bob"], None, "say with data.label_as what it is"),
        ("1", ["2", "1"], None, "say with data.label_as what it is"),
        ("A", ["B", "A"], None, "may be choice 1 or choice 2"),
        ("Ann", ["Ann", "Ann"], None, "may be choice 1 or choice 2"),
        (2, ["Ann", "Bob"], "number_from_0", "'2' is as number_from_0 none of the 2 choices"),
        ("Eve", ["Ann", "Bob"], None, "'Eve' is none of the 2 choices"),
        (0.5, ["Ann", "Bob"], None, "a number with a fraction"),
        (float("nan"), ["Ann", "Bob"], None, "it has no label"),
    ],
)
def test_what_is_right_is_never_guessed(label: Any, choices: list[str], label_as: Any, found: int | str) -> None:
    if isinstance(found, int):
        assert right_choice(label, choices, label_as) == found
    else:
        with pytest.raises(LabelError, match=found):
            right_choice(label, choices, label_as)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": None}, "the question is empty"),
        ({"context": float("nan")}, "the context is empty"),
        ({"context": 5}, "the context is of the type int, but it should be a text"),
        ({"choices": ["b"]}, "it has one choice only"),
        ({"choices": []}, "it has no choices"),
        ({"choices": ["a", ""]}, "choice 2 is empty"),
        ({"choices": ["b", float("nan")]}, "choice 2 is empty"),
        ({"choices": ["b", 2]}, "some choices are texts and some are numbers"),
        ({"choices": ["b", ["c"]]}, "choice 2 is of the type list"),
        ({"choices": "a, b"}, "the choices are of the type str, but they should be a list"),
        ({"choices": "[a, b]"}, "which is no JSON list"),
        ({"label": "z"}, "none of the 2 choices"),
        ({"label": None}, "it has no label"),
    ],
)
def test_a_bad_record_is_named_and_skipped(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text(json.dumps(GOOD | change) + "\n" + json.dumps(GOOD) + "\n")
    quarantine = Quarantine(1)
    assert len(read_all(tmp_path / "lines.jsonl", quarantine)) == 1
    ((name, why),) = quarantine.items()
    assert name == f"{tmp_path / 'lines.jsonl'}:1"
    assert reason in why


def test_a_missing_field_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(DataError, match="it has no field answer, only context, question, choices, label"):
        read_all(tmp_path / "lines.jsonl", label="answer")
    (tmp_path / "text.txt").write_text("No records.")
    with pytest.raises(DataError, match="is text, but questions with choices are records"):
        read_all(tmp_path / "text.txt")


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_rows_are_what_transformers_makes_of_pairs_of_which_the_context_is_cut(family: str, tmp_path: Path) -> None:
    (byte_level if family == "roberta" else word_pieces)(tmp_path)
    theirs = (transformers.RobertaTokenizer if family == "roberta" else transformers.BertTokenizer).from_pretrained(
        tmp_path
    )
    texts = ["the old price is now what the court says " * count for count in (1, 4)]
    choices = (["the court", "the price"], ["the", "now", "the old price"])
    records = [{"context": text, "choices": each, "label": each[1]} for text in texts for each in choices]
    records = [{"question": f"Is it {number}?", **records[number % 4]} for number in range(40)]
    (tmp_path / "lines.json").write_text(json.dumps(records))
    tokenizer = TextTokenizer(tokenizer_content(tmp_path))
    prepared = prepare(
        multiple_choice(tmp_path / "lines.json", **FIELDS),
        tokenizer=tokenizer,
        output=tmp_path / "out",
        task_map=in_this_process,
    )
    sequences = ChoiceSequences(prepared.split("train"), around=tokenizer.format, sequence_length=64, seed=1)
    by_question = {record["question"]: record for record in records}
    for position in range(sequences.per_epoch):
        found, piece = sequences.sequence(position), sequences._piece(position)
        example = prepared.split("train").read(piece.shard, piece.example)
        assert example is not None
        record = by_question[example.fields["question"]]
        pairs = [f"{record['question']} {choice}" for choice in record["choices"]]
        lengths = [len(theirs(pair, add_special_tokens=False)["input_ids"]) for pair in pairs]
        for row, (pair, length) in enumerate(zip(pairs, lengths, strict=True)):
            # All rows show as much of the context as the longest choice leaves.
            limit = 64 - (max(lengths) - length)
            expected = theirs(
                record["context"], pair, truncation="only_first", max_length=limit, return_token_type_ids=True
            )
            is_token = found["attention_mask"][row] == 1
            assert found["input_ids"][row][is_token].tolist() == expected["input_ids"]
            assert found["token_type_ids"][row][is_token].tolist() == expected["token_type_ids"]
            assert is_token.tolist() == sorted(is_token, reverse=True)
            # The default of transformers' head where separators show where it begins.
            assert found["global_attention_mask"][row].sum() == length + 1
            assert found["global_attention_mask"][row][is_token][-length - 1 :].all()
        assert found["labels"] == 1
        assert sequences.length(position) == found["input_ids"].shape[1] <= 64
