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
            file.write(json.dumps(record | {"spans": [number, 2.5]}) + "\n")
    corpus = labelled(folder / "lines.jsonl", texts=FIELDS["texts"], fields={**FIELDS["fields"], "spans": "spans"})
    return prepare(
        corpus,
        tokenizer=small_tokenizer,
        output=folder / "out",
        task_map=in_this_process,
        shard_characters=20_000,
    )


def sequences_of(prepared: PreparedData, **changes: Any) -> LabelledSequences:
    options = {"text": "text", "label": "label", "classes": ["no", "yes"], "sequence_length": 128, "seed": 1}
    return LabelledSequences(prepared.split("train"), **(options | changes))


def batches_of(sequences: LabelledSequences, **options: int) -> Batches:
    return Batches(
        sequences, **({"global_batch_size": 12, "micro_batch_size": 6, "rank": 0, "world_size": 1} | options)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "classes", "dtype", "shape"),
    [
        ("label", ["no", "yes"], torch.int64, (6,)),
        ("score", None, torch.float32, (6,)),
        ("spans", None, torch.float32, (6, 2)),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_labels_reach_a_batch_in_a_type_of_their_own_and_ids_stay_whole_numbers(
    workers: int,
    label: str,
    classes: list[str] | None,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    prepared: PreparedData,
) -> None:
    sequences = sequences_of(prepared, label=label, classes=classes)
    batch = next(iter(batches_of(sequences, workers=workers)))
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert (batch["labels"].dtype, tuple(batch["labels"].shape)) == (dtype, shape)
    decode = prepared.tokenizer.decode
    for ids, mask, value in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        number = int(decode(ids[mask == 1][1:-1].tolist()).split(" ")[0])
        expected = {"label": number % 2, "score": number / 8, "spans": [number, 2.5]}[label]
        assert value.tolist() == expected


def test_a_label_that_is_no_class_and_one_that_is_not_there_are_one_sentence(prepared: PreparedData) -> None:
    with pytest.raises(DataError, match=r"has the label '(no|yes)', which is none of \['maybe'\]"):
        sequences_of(prepared, classes=["maybe"]).sequence(0)
    with pytest.raises(DataError, match="has no field target: it has label, name, score, spans"):
        sequences_of(prepared, label="target").sequence(0)
    with pytest.raises(DataError, match="holds no body: prepare it with this text"):
        sequences_of(prepared, text="body")


def test_a_damaged_example_is_an_empty_text_without_a_class(prepared: PreparedData) -> None:
    split = prepared.split("train", quarantine=Quarantine(1))
    split._shard(0).index.members["checksum"][0] += np.uint64(1)
    sequence = LabelledSequences(
        split, text="text", label="label", classes=["no", "yes"], sequence_length=64, seed=1
    ).example(0, 0)
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
