"""Labelled text: read from JSON lines, CSV and folders, kept with its fields, and batched in types of its own."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_pipeline.errors import DataError
from data_pipeline.loading.batches import Batches
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.labelled import LabelledSequences
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.labelled import labelled
from data_pipeline.sources.labels import Problem
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.subword import TextTokenizer
from tests.data_pipeline.random_texts import random_texts

FIELDS = {"texts": {"text": "text"}, "fields": {"label": "label", "score": "score", "name": "id"}}


def read_all(source: Path, quarantine: Quarantine | None = None, **named: Any) -> list[RawExample]:
    corpus = labelled(source, **({"texts": {"text": "text"}, "fields": {"label": "label"}} | named))
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def test_real_reviews_are_read_in_their_splits_with_some_training_ones_for_validation(test_data: Path) -> None:
    examples = read_all(test_data / "imdb", fields={"label": "label", "id": "id"})
    assert Counter(example.split for example in examples) == {"train": 3_800, "validation": 200, "test": 2_000}
    assert {example.fields["label"] for example in examples} == {0, 1}
    assert len({example.fields["id"] for example in examples}) == 6_000


def test_csv_and_folders_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('text,label,other\n"one, and\ntwo",good,1\nthree,bad,2\n')
    assert [(example.texts["text"], dict(example.fields)) for example in read_all(tmp_path / "table.csv")] == [
        ("one, and\ntwo", {"label": "good"}),
        ("three", {"label": "bad"}),
    ]
    for name in ("train/pos/1.txt", "train/neg/2.txt", "test/pos/3.txt", "dev/neg/4.txt", "README"):
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    found = {
        (example.texts["text"], example.fields["label"], example.split) for example in read_all(tmp_path / "folder")
    }
    assert found == {
        ("train/pos/1.txt", "pos", "train"),
        ("train/neg/2.txt", "neg", "train"),
        ("test/pos/3.txt", "pos", "test"),
        ("dev/neg/4.txt", "neg", "validation"),
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"}', "it has no field label, only text"),
        ('{"text": 5, "label": 1}', "found int"),
        ('{"text": "a", "label": null}', "found NoneType"),
        ('{"text": "a", "label": {"b": 1}}', "found dict"),
        ("[1", "it is no JSON"),
    ],
)
def test_a_record_without_what_was_named_is_named_and_skipped(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text(line + "\n")
    quarantine = Quarantine(1)
    assert read_all(tmp_path / "lines.jsonl", quarantine) == []
    ((name, why),) = quarantine.items()
    assert name == f"{tmp_path / 'lines.jsonl'}:1"
    assert reason in why


@pytest.fixture(scope="module")
def prepared(small_tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """400 labelled texts in several shards; every label is told by the text."""
    folder = tmp_path_factory.mktemp("labelled")
    with (folder / "lines.jsonl").open("w") as file:
        for number, text in enumerate(random_texts(400, seed=5)):
            record = {"text": text, "label": ["no", "yes"][number % 2], "score": number / 8, "id": f"n{number}"}
            record |= {"tags": ["b", "a"][number % 3 :], "even": 1 - number % 2, "small": number < 100}
            file.write(json.dumps(record) + "\n")
    corpus = labelled(
        folder / "lines.jsonl",
        texts=FIELDS["texts"],
        fields={**FIELDS["fields"], "tags": "tags", "flags": ["even", "small"]},
        labels={"label": "single_label", "score": "regression", "tags": "multi_label", "flags": "multi_label"},
    )
    return prepare(
        corpus,
        tokenizer=small_tokenizer,
        output=folder / "out",
        task_map=in_this_process,
        shard_characters=20_000,
    )


def sequences_of(prepared: PreparedData, **changes: Any) -> LabelledSequences:
    options = {
        "text": "text", "label": "label", "problem": "single_label", "classes": ["no", "yes"],
        "sequence_length": 128, "seed": 1,
    }  # fmt: skip
    return LabelledSequences(prepared.split("train"), **(options | changes))


def batches_of(sequences: LabelledSequences, **options: int) -> Batches:
    return Batches(
        sequences, **({"global_batch_size": 12, "micro_batch_size": 6, "rank": 0, "world_size": 1} | options)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "problem", "classes", "dtype", "shape"),
    [
        ("label", "single_label", ["no", "yes"], torch.int64, (6,)),
        ("score", "regression", [], torch.float32, (6,)),
        ("tags", "multi_label", ["a", "b"], torch.float32, (6, 2)),
        ("flags", "multi_label", ["even", "small"], torch.float32, (6, 2)),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_labels_reach_a_batch_in_a_type_of_their_own_and_ids_stay_whole_numbers(
    workers: int,
    label: str,
    problem: Problem,
    classes: list[str],
    dtype: torch.dtype,
    shape: tuple[int, ...],
    prepared: PreparedData,
) -> None:
    sequences = sequences_of(prepared, label=label, problem=problem, classes=classes)
    batch = next(iter(batches_of(sequences, workers=workers)))
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert (batch["labels"].dtype, tuple(batch["labels"].shape)) == (dtype, shape)
    decode = prepared.tokenizer.decode
    for ids, mask, value in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        number = int(decode(ids[mask == 1][1:-1].tolist()).split(" ")[0])
        expected = {
            "label": number % 2,
            "score": number / 8,
            "tags": [number % 3 < 2, number % 3 < 1],
            "flags": [number % 2 == 0, number < 100],
        }[label]
        assert value.tolist() == expected


def test_a_label_that_is_no_class_and_one_that_is_not_there_are_one_sentence(prepared: PreparedData) -> None:
    with pytest.raises(DataError, match=r"has the label '(no|yes)', which is none of maybe"):
        sequences_of(prepared, classes=["maybe"]).sequence(0)
    with pytest.raises(DataError, match="has no field target: it has flags, label, name, score, tags"):
        sequences_of(prepared, label="target").sequence(0)
    with pytest.raises(DataError, match="holds no body: prepare it with this text"):
        sequences_of(prepared, text="body")


def test_a_damaged_example_is_an_empty_text_without_a_class(prepared: PreparedData) -> None:
    split = prepared.split("train", quarantine=Quarantine(1))
    split._shard(0).index.members["checksum"][0] += np.uint64(1)
    sequence = LabelledSequences(
        split, text="text", label="label", problem="single_label", classes=["no", "yes"], sequence_length=64, seed=1
    ).whole(0, 0)
    special = split.tokenizer.special_tokens
    assert sequence["input_ids"].tolist() == [special.begin, special.end]
    assert sequence["labels"] == IGNORED


def test_an_epoch_holds_every_example_once_and_gathering_by_length_pads_less(prepared: PreparedData) -> None:
    sequences = sequences_of(prepared, sequence_length=500)
    assert sequences.per_epoch == 360
    found = {sequences.sequence(position)["input_ids"].tobytes() for position in range(360)}
    assert len(found) == 360

    def padding(bucket_batches: int) -> int:
        batches = batches_of(sequences, micro_batch_size=12, bucket_batches=bucket_batches)
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in islice(batches, 16))

    assert padding(16) < padding(1) / 2


def test_the_classes_of_every_split_are_counted_in_the_manifest(prepared: PreparedData) -> None:
    counts = prepared.manifest.corpus.classes
    assert list(counts) == ["label", "tags", "flags"]
    whole = {name: {each: sum(split.get(each, 0) for split in counts[name].values()) for each in counts[name]["train"]}
             for name in counts}  # fmt: skip
    assert whole == {
        "label": {"no": 200, "yes": 200},
        "tags": {"a": 267, "b": 134},
        "flags": {"even": 200, "small": 100},
    }


@pytest.mark.parametrize("sequence_length", [64, 128])
def test_windows_of_a_long_text_take_turns_and_ends_are_cut_where_asked(
    sequence_length: int, prepared: PreparedData
) -> None:
    def shown(long_documents: str) -> dict[bytes, set[bytes]]:
        """Which parts of every text are shown in ten epochs, by the whole text."""
        sequences = sequences_of(prepared, sequence_length=sequence_length, long_documents=long_documents)
        found: dict[bytes, set[bytes]] = {}
        for position in range(10 * sequences.per_epoch):
            piece = sequences._piece(position)
            whole = sequences.whole(piece.shard, piece.example)["input_ids"][1:-1]
            part = sequences.sequence(position)["input_ids"]
            assert len(part) == sequences.length(position)
            found.setdefault(whole.tobytes(), set()).add(part[1:-1].tobytes())
        return found

    room = sequence_length - 2
    for whole, parts in shown("truncate_end").items():
        assert parts == {np.frombuffer(whole, np.int64)[:room].tobytes()}
    for whole, parts in shown("truncate_begin").items():
        assert parts == {np.frombuffer(whole, np.int64)[-room:].tobytes()}
    seen = 0
    for whole, parts in shown("windows").items():
        text = np.frombuffer(whole, np.int64)
        starts = sorted({min(start, max(0, len(text) - room)) for start in range(0, len(text), room)})
        expected = {text[start : start + room].tobytes() for start in starts}
        assert parts <= expected
        seen += parts == expected and len(expected) > 1
    assert seen > 50


@pytest.mark.parametrize(
    ("labels", "problem", "sentence"),
    [
        ([[]] * 3, "multi_label", "no training example has a label"),
        (["a"] * 9, "single_label", "labels of the training examples are 'a': there is nothing to tell apart"),
        (
            [f"id{number}" for number in range(60)],
            "single_label",
            "as identifiers and texts have: name the field that holds the class",
        ),
        (["a", 0.5], "single_label", "lines.jsonl:2 is damaged: the label is 0.5, a number with a fraction"),
        (["a", float("nan")], "single_label", "lines.jsonl:2 is damaged: it has no label"),
        (["a", ""], "single_label", "lines.jsonl:2 is damaged: it has no label"),
        ([["a"], {"b": 1}], "multi_label", "lines.jsonl:2 is damaged: the labels are {'b': 1}, but they should be a"),
        ([1, "much"], "regression", "lines.jsonl:2 is damaged: the label is 'much', but it should be a number"),
        ([1, float("inf")], "regression", "lines.jsonl:2 is damaged: the label is inf, but it should be a finite"),
    ],
)
def test_labels_that_cannot_be_learned_are_one_sentence(
    labels: list[Any], problem: Problem, sentence: str, small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    lines = [json.dumps({"text": "word", "label": label}) + "\n" for label in labels]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "lines.jsonl").write_text("".join(lines))
    corpus = labelled(tmp_path, texts={"text": "text"}, fields={"label": "label"}, labels={"label": problem})
    with pytest.raises(DataError) as caught:
        prepare(corpus, tokenizer=small_tokenizer, output=tmp_path / "out", task_map=in_this_process)
    assert sentence in str(caught.value)


def test_one_class_can_be_learned_where_some_examples_do_not_have_it(
    small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    lines = [json.dumps({"text": "word", "label": label}) + "\n" for label in [["a"], [], ["a"], [], ["a"]]]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    corpus = labelled(tmp_path, texts={"text": "text"}, fields={"label": "label"}, labels={"label": "multi_label"})
    prepared = prepare(corpus, tokenizer=small_tokenizer, output=tmp_path / "out", task_map=in_this_process)
    assert prepared.manifest.corpus.classes["label"]["train"] == {"a": 3}


def test_a_label_that_only_held_out_examples_have_is_refused(small_tokenizer: TextTokenizer, tmp_path: Path) -> None:
    for split, labels in {"train": "aabb", "dev": "abc"}.items():
        lines = [json.dumps({"text": "word", "label": label}) + "\n" for label in labels]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    corpus = labelled(tmp_path, texts={"text": "text"}, fields={"label": "label"}, labels={"label": "single_label"})
    with pytest.raises(DataError, match="1 of the examples for validation have the label 'c', which no training"):
        prepare(corpus, tokenizer=small_tokenizer, output=tmp_path / "out", task_map=in_this_process)


def test_labels_of_tables_are_read_as_those_of_json(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('text,one,many,number\na,1.0,x; y,2.5\nb,0,"[""z""]",-3\nc,2,,0\n')
    found = read_all(
        tmp_path / "table.csv",
        fields={"one": "one", "many": "many", "number": "number"},
        labels={"one": "single_label", "many": "multi_label", "number": "regression"},
    )
    assert [dict(each.fields) for each in found] == [
        {"one": "1.0", "many": ["x", "y"], "number": 2.5},
        {"one": "0", "many": ["z"], "number": -3.0},
        {"one": "2", "many": [], "number": 0.0},
    ]
