import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.shards.stream_dataset import PreparedData
from data_pipeline.shards.stream_manifest import SplitRecord
from data_pipeline.shards.stream_reader import TokenStream
from data_pipeline.shards.stream_shards import index_path, write_index, write_shards


def written_stream(directory: Path, blocks: list[np.ndarray]) -> TokenStream:
    members = write_shards(directory, "train", blocks)
    record = SplitRecord(
        tokens=sum(map(len, blocks)),
        samples=len(members),
        shards={member.shard: (directory / member.shard).stat().st_size for member in members},
        index_sha256=write_index(index_path(directory, "train"), members),
    )
    return TokenStream(directory, "train", record, token_type=blocks[0].dtype, fingerprint="")


@pytest.mark.parametrize("token_type", [np.uint8, np.uint16])
def test_any_range_is_read_as_if_the_tokens_lay_in_memory(token_type: type, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks = [random.integers(0, np.iinfo(token_type).max, size, dtype=token_type) for size in (7, 1, 500, 64, 3)]
    stream = written_stream(tmp_path, blocks)
    tokens = np.concatenate(blocks)
    assert len(stream) == len(tokens)

    @given(st.integers(0, len(tokens)), st.integers(0, len(tokens)))
    def check(one: int, other: int) -> None:
        start, stop = sorted((one, other))
        read = stream.read(start, stop)
        assert read.dtype == token_type
        assert np.array_equal(read, tokens[start:stop])

    check()


def test_prepared_splits_together_are_the_text(prepared_once: PreparedData, small_text: Path) -> None:
    streams = [prepared_once.split(name) for name in ("train", "validation", "test")]
    ids = np.concatenate([stream.read(0, len(stream)) for stream in streams])
    assert prepared_once.vocabulary.decode_bytes(ids) == small_text.read_bytes()


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, 2_000_000)])
def test_range_outside_the_stream_is_refused(start: int, stop: int, prepared_once: PreparedData) -> None:
    with pytest.raises(ValueError, match="do not lie within"):
        prepared_once.split("train").read(start, stop)


def test_open_files_are_bounded(tmp_path: Path) -> None:
    blocks = [np.full(3, number % 256, dtype=np.uint8) for number in range(128 * 40)]
    stream = written_stream(tmp_path, blocks)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for position in range(0, len(stream), 3 * 64):
        assert stream.read(position, position + 1)[0] == position // 3 % 256
    assert len(list(tmp_path.glob("*.tar"))) == 40
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 16


def flip_bit(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("sample", [0, 1, 13])
def test_flipped_bit_is_found_on_first_read_and_named_by_file_and_sample(
    sample: int, prepared_copy: PreparedData
) -> None:
    flip_bit(prepared_copy.directory / "train-000000.tar", sample * 66_560 + 5_000)
    stream = prepared_copy.split("train")
    just_behind = 65_536 * (sample + 1)
    stream.read(just_behind, just_behind + 100)
    with pytest.raises(DataError, match=rf"train-000000\.tar is damaged at sample {sample:06d}"):
        stream.read(65_536 * sample, 65_536 * sample + 1)
    assert len(prepared_copy.find_damage()) == 1


def test_damage_is_found_whatever_byte_of_the_samples_is_hit(prepared_copy: PreparedData) -> None:
    shard = prepared_copy.directory / "validation-000000.tar"
    for offset in range(512, 65_000, 6_007):
        flip_bit(shard, offset)
        assert "sample 000000" in prepared_copy.find_damage()[0]
        flip_bit(shard, offset)
    assert prepared_copy.find_damage() == []


def test_every_damaged_sample_is_listed(prepared_copy: PreparedData) -> None:
    flip_bit(prepared_copy.directory / "train-000000.tar", 5_000)
    flip_bit(prepared_copy.directory / "train-000000.tar", 3 * 66_560 + 5_000)
    flip_bit(prepared_copy.directory / "test-000000.tar", 5_000)
    found = [message.split("/")[-1].split(":")[0] for message in prepared_copy.find_damage()]
    assert found == [
        "train-000000.tar is damaged at sample 000000",
        "train-000000.tar is damaged at sample 000003",
        "test-000000.tar is damaged at sample 000000",
    ]


def test_truncated_missing_or_relabelled_parts_are_refused_when_opened(prepared_copy: PreparedData) -> None:
    shard = prepared_copy.directory / "train-000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10_240])
    with pytest.raises(DataError, match=r"train-000000\.tar is damaged: it has"):
        prepared_copy.split("train")
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar is missing"):
        prepared_copy.split("train")
    shard.write_bytes(content)
    index = prepared_copy.directory / "train.index.jsonl"
    index.write_bytes(index.read_bytes().replace(b'"tokens": 65536', b'"tokens": 65535', 1))
    with pytest.raises(DataError, match=r"train\.index\.jsonl is damaged"):
        prepared_copy.split("train")
    index.unlink()
    with pytest.raises(DataError, match=r"train\.index\.jsonl cannot be read"):
        prepared_copy.split("train")


def test_shard_that_shrinks_while_it_is_read_is_named(prepared_copy: PreparedData) -> None:
    stream = prepared_copy.split("train")
    os.truncate(prepared_copy.directory / "train-000000.tar", 70_000)
    with pytest.raises(DataError, match=r"train-000000\.tar is truncated at sample 000001"):
        stream.read(65_000, 66_000)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"format": "longformer-tokens-1"}'])
def test_damaged_manifest_is_refused(damage: bytes, prepared_copy: PreparedData) -> None:
    (prepared_copy.directory / "manifest.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        PreparedData.open(prepared_copy.directory)


def test_manifest_that_was_edited_is_refused(prepared_copy: PreparedData) -> None:
    path = prepared_copy.directory / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"samples": 28', b'"samples": 27'))
    with pytest.raises(DataError, match="fingerprint does not fit"):
        PreparedData.open(prepared_copy.directory)


def test_changed_vocabulary_file_counts_as_damage(prepared_copy: PreparedData) -> None:
    path = prepared_copy.directory / "vocabulary.json"
    path.write_text(path.read_text().replace("[0, 1,", "[1, 0,"))
    assert "is not the vocabulary of the manifest" in prepared_copy.find_damage()[0]


def test_folder_without_prepared_data_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no prepared data .* longformer data prepare"):
        PreparedData.open(tmp_path)
