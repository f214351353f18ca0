"""Damage to prepared documents: borne by name within a bound, never in silence."""

import json
import multiprocessing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.loading.batches import Batches
from data_pipeline.sampling.masking import IGNORED, MaskedSequences, Masking
from data_pipeline.sampling.text import DocumentSequences, PackedSequences
from data_pipeline.shards.prepared import PreparedData, Split
from data_pipeline.sources.corpora import TEXT
from data_pipeline.sources.quarantine import Quarantine
from tests.data_pipeline.test_document_batches import GLOBAL_BATCH
from tests.data_pipeline.test_reader import flip_bit


def damage_documents(documents: PreparedData, *numbers: int) -> list[str]:
    """Flip a bit in the tokens of documents of the first training shard; return their names."""
    split = documents.split("train")
    shard = Path(documents.location, split.shards[0].shard_file)
    names = []
    for number in numbers:
        index = split._shard(0).index
        found = index.member(number, TEXT)
        assert found is not None
        member = index.members[found]
        flip_bit(shard, int(member["offset"]) + int(member["size"]) - 1)
        names.append(f"{shard} sample {member['key']:09d}")
    return names


def batches_of(split: Split, **options: int) -> Batches:
    return Batches(
        MaskedSequences(PackedSequences(split, sequence_length=48, seed=1), Masking(split.tokenizer, seed=1)),
        **({"global_batch_size": GLOBAL_BATCH, "micro_batch_size": 1, "rank": 0, "world_size": 1} | options),  # type: ignore[arg-type]
    )


def one_epoch(split: Split, **options: int) -> list[dict[str, np.ndarray]]:
    batches = batches_of(split, **options)
    sequences = batches.sequences.per_epoch // GLOBAL_BATCH * GLOBAL_BATCH // options.get("world_size", 1)
    count = sequences // options.get("micro_batch_size", 1)
    return [{name: values.numpy() for name, values in batch.items()} for batch in islice(batches, count)]


def test_damaged_documents_are_padding_in_an_order_that_is_otherwise_the_same(documents_copy: PreparedData) -> None:
    whole = one_epoch(documents_copy.split("train"))
    names = damage_documents(documents_copy, 3, 17)
    quarantine = Quarantine(limit=2)
    damaged = one_epoch(documents_copy.split("train", quarantine=quarantine))
    assert sorted(name for name, _ in quarantine.items()) == sorted(names)
    padded = 0
    for before, after in zip(whole, damaged, strict=True):
        skipped = after["attention_mask"] == 0
        padded += int(skipped.sum())
        assert np.array_equal(np.where(skipped, 1, before["input_ids"]), after["input_ids"])
        assert np.array_equal(np.where(skipped, IGNORED, before["labels"]), after["labels"])
    split = documents_copy.split("train")
    expected = sum(int(split.lengths(0, TEXT)[number]) + 1 for number in (3, 17))
    assert expected - 2 * 48 <= padded <= expected


def test_more_damage_than_the_bound_stops_the_run_with_one_sentence(documents_copy: PreparedData) -> None:
    damage_documents(documents_copy, 3, 17)
    with pytest.raises(
        DataError, match=r"train-000000\.tar sample \d{9} is damaged: .* 2 damaged samples are more than the 1 "
    ):
        one_epoch(documents_copy.split("train", quarantine=Quarantine(limit=1)))


def test_ranks_workers_and_restarts_share_one_list_and_one_bound(documents_copy: PreparedData, tmp_path: Path) -> None:
    names = damage_documents(documents_copy, 1, 3, 17)
    path = tmp_path / "quarantine.jsonl"

    def run(rank: int, limit: int) -> None:
        quarantine = Quarantine(limit, path)
        one_epoch(
            documents_copy.split("train", quarantine=quarantine), rank=rank, world_size=2, workers=2, micro_batch_size=6
        )

    for _ in range(2):
        for rank in range(2):
            run(rank, limit=3)
    assert sorted(json.loads(line)["name"] for line in path.read_text().splitlines()) == sorted(names)
    with pytest.raises(DataError, match=r"3 damaged samples are more than the 2 allowed \(all are named in .*jsonl\)"):
        run(0, limit=2)
    assert multiprocessing.active_children() == []


def test_a_sequence_whose_only_document_is_damaged_is_begin_and_end(documents_copy: PreparedData) -> None:
    damage_documents(documents_copy, 5)
    sequences = DocumentSequences(documents_copy.split("train", quarantine=Quarantine(1)), sequence_length=500, seed=1)
    lengths = [len(sequences.sequence(position)["input_ids"]) for position in range(sequences.per_epoch)]
    assert lengths.count(2) == 1
    differ = [place for place, length in enumerate(lengths) if length != sequences.length(place)]
    assert [lengths[place] for place in differ] == [2]


def test_a_flipped_bit_in_an_index_is_refused_and_named(documents_copy: PreparedData) -> None:
    index = Path(documents_copy.location, "train-000002.index.npy")
    for offset in (20, 200, index.stat().st_size - 1):
        flip_bit(index, offset)
        with pytest.raises(DataError, match=r"train-000002\.index\.npy is damaged: its checksum"):
            one_epoch(documents_copy.split("train", quarantine=Quarantine(100)))
        flip_bit(index, offset)


def test_verify_lists_every_damage(documents_copy: PreparedData) -> None:
    names = damage_documents(documents_copy, 3, 17)
    Path(documents_copy.location, "test-000000.tar").unlink()
    flip_bit(Path(documents_copy.location, "train-000002.index.npy"), 100)
    Path(documents_copy.location, "tokenizer.json").write_bytes(b"{}")
    damages = documents_copy.find_damage()
    assert len(damages) == 5
    for part in [*names, "test-000000.tar cannot be read", "train-000002.index.npy is damaged", "tokenizer.json"]:
        assert sum(part in damage for damage in damages) == 1


def test_truncated_shards_and_damaged_manifests_are_refused(documents_copy: PreparedData) -> None:
    shard = Path(documents_copy.location, "train-000001.tar")
    content = shard.read_bytes()
    shard.write_bytes(content[:-512])
    with pytest.raises(DataError, match=r"train-000001\.tar is damaged: it has \d+ bytes, the manifest says \d+"):
        one_epoch(documents_copy.split("train"))
    manifest = Path(documents_copy.location, "manifest.json")
    written = manifest.read_bytes()
    for damage in (
        b"",
        b"{}",
        b'{"format": "longformer-examples-1"}',
        written.replace(b'"examples": ', b'"examples": 1'),
    ):
        manifest.write_bytes(damage)
        with pytest.raises(DataError, match=r"manifest\.json is damaged"):
            PreparedData.open(documents_copy.location)
    manifest.unlink()
    with pytest.raises(DataError, match=r"holds no prepared data .* longformer data prepare"):
        PreparedData.open(documents_copy.location)


@pytest.mark.parametrize("format_name", ["longformer-tokens-1", "longformer-documents-1"])
def test_data_of_an_earlier_format_is_to_be_prepared_again(format_name: str, documents_copy: PreparedData) -> None:
    manifest = Path(documents_copy.location, "manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b"longformer-examples-1", format_name.encode()))
    with pytest.raises(DataError, match=r"manifest\.json was written by another version, .* prepare the data again$"):
        PreparedData.open(documents_copy.location)
