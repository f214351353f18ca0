"""Shards are WebDataset shards: any of its loops reads them, and the index says where each member lies."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.shard import Example, parse_index, write_shard
from data_pipeline.shards.stream import TokenStream

FIELDS = {"id": "ünï", "label": 1, "score": 0.5, "answers": ["a", "b"], "spans": [[0, 3]]}


def examples(count: int) -> list[Example]:
    return [
        Example(
            number,
            FIELDS | {"label": number} if number % 3 else {},
            {"question": np.arange(number % 4, dtype=np.uint16), "context": np.arange(number, dtype=np.uint16)},
        )
        for number in range(count)
    ]


def test_webdataset_itself_reads_the_shards(prepared_once: PreparedData) -> None:
    shards = sorted(str(path) for path in Path(prepared_once.location).glob("train-*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    stream = TokenStream(prepared_once.split("train"))
    assert [sample["__key__"] for sample in samples] == [f"{number:09d}" for number in range(len(samples))]
    assert np.array_equal(np.concatenate([sample["text.npy"] for sample in samples]), stream.read(0, len(stream)))


def test_a_sample_of_webdataset_has_its_fields_and_its_token_ids_by_name(tmp_path: Path) -> None:
    written = examples(20)
    write_shard(tmp_path, "train-000000", written, text_sha256="")
    for sample, example in zip(
        webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False).decode(), written, strict=True
    ):
        assert sample["__key__"] == f"{example.key:09d}"
        assert sample.get("json", {}) == example.fields
        for name, ids in example.tokens.items():
            assert np.array_equal(sample[f"{name}.npy"], ids)
            assert sample[f"{name}.npy"].dtype == ids.dtype
        assert {name for name in sample if not name.startswith("__")} <= {"json", "question.npy", "context.npy"}


def test_the_index_points_at_the_members_in_the_tar(tmp_path: Path) -> None:
    record = write_shard(tmp_path, "train-000000", examples(20), text_sha256="")
    index = parse_index("", (tmp_path / record.index_file).read_bytes(), record)
    assert len(index) == record.examples == 20
    assert record.tokens == {"question": 30, "context": 190}
    assert index.lengths("context").tolist() == list(range(20))
    assert index.lengths("absent").tolist() == [0] * 20
    with tarfile.open(tmp_path / record.shard_file) as archive:
        entries = archive.getmembers()
    assert [(entry.offset_data, entry.size) for entry in entries] == [
        (int(member["offset"]), int(member["size"])) for member in index.members
    ]
    for number, example in enumerate(examples(20)):
        assert (index.member(number, "json") is not None) == bool(example.fields)


def test_same_examples_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        record = write_shard(folder, "train-000000", examples(300), text_sha256="")
        contents.append((record, {path.name: path.read_bytes() for path in folder.iterdir()}))
    assert contents[0] == contents[1]
    assert len(contents[0][1]) == 2


@pytest.mark.parametrize("name", ["json", "two words", "Text", "a.b", ""])
def test_a_name_that_cannot_be_part_of_a_member_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot name token ids"):
        write_shard(tmp_path, "train-000000", [Example(0, {}, {name: np.arange(3)})], text_sha256="")
