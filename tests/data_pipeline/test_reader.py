import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.shards.prepared import PreparedData, Split
from data_pipeline.shards.shard import Example, write_shard
from data_pipeline.shards.storage import LocalDirectory
from data_pipeline.shards.stream import TokenStream
from data_pipeline.sources.corpora import TEXT
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.tokenizer import TokenizerRecord

MEMBER_BYTES = 66_560
"""Of 65,536 characters in the tar, with its headers."""


def written_stream(directory: Path, blocks: list[np.ndarray], *, per_shard: int) -> TokenStream:
    """Write every block as an example, so many to a shard, and return all of them as a stream."""
    examples = [Example(number, {}, {TEXT: block}) for number, block in enumerate(blocks)]
    records = tuple(
        write_shard(directory, f"train-{start:06d}", examples[start : start + per_shard], text_sha256="")
        for start in range(0, len(examples), per_shard)
    )
    tokenizer = TokenizerRecord(file="", sha256="", vocabulary_size=256, token_type=blocks[0].dtype.name, special=None)
    storage = LocalDirectory(str(directory))
    return TokenStream(Split(storage, records, "train", "", tokenizer, open_shards=16, quarantine=Quarantine(0)))


@pytest.mark.parametrize("token_type", [np.uint8, np.uint16])
def test_any_range_is_read_as_if_the_tokens_lay_in_memory(token_type: type, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks = [random.integers(0, np.iinfo(token_type).max, size, dtype=token_type) for size in (7, 1, 500, 64, 3)]
    stream = written_stream(tmp_path, blocks, per_shard=2)
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
    streams = [TokenStream(prepared_once.split(name)) for name in ("train", "validation", "test")]
    ids = np.concatenate([stream.read(0, len(stream)) for stream in streams])
    assert prepared_once.vocabulary.decode_bytes(ids) == small_text.read_bytes()


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, 2_000_000)])
def test_range_outside_the_stream_is_refused(start: int, stop: int, prepared_once: PreparedData) -> None:
    with pytest.raises(ValueError, match="do not lie within"):
        TokenStream(prepared_once.split("train")).read(start, stop)


def test_open_files_are_bounded(tmp_path: Path) -> None:
    blocks = [np.full(3, number % 256, dtype=np.uint8) for number in range(128 * 40)]
    stream = written_stream(tmp_path, blocks, per_shard=128)
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
    flip_bit(Path(prepared_copy.location) / "train-000000.tar", sample * MEMBER_BYTES + 5_000)
    stream = TokenStream(prepared_copy.split("train"))
    just_behind = 65_536 * (sample + 1)
    stream.read(just_behind, just_behind + 100)
    with pytest.raises(DataError, match=rf"train-000000\.tar sample {sample:09d} is damaged"):
        stream.read(65_536 * sample, 65_536 * sample + 1)
    assert len(prepared_copy.find_damage()) == 1


def test_damage_is_found_whatever_byte_of_the_samples_is_hit(prepared_copy: PreparedData) -> None:
    shard = Path(prepared_copy.location) / "validation-000000.tar"
    for offset in range(512, 65_000, 6_007):
        flip_bit(shard, offset)
        assert "sample 000000028" in prepared_copy.find_damage()[0]
        flip_bit(shard, offset)
    assert prepared_copy.find_damage() == []


def test_every_damaged_sample_is_listed(prepared_copy: PreparedData) -> None:
    flip_bit(Path(prepared_copy.location) / "train-000000.tar", 5_000)
    flip_bit(Path(prepared_copy.location) / "train-000000.tar", 3 * MEMBER_BYTES + 5_000)
    flip_bit(Path(prepared_copy.location) / "test-000000.tar", 5_000)
    found = [message.split("/")[-1].split(":")[0] for message in prepared_copy.find_damage()]
    assert found == [
        "train-000000.tar sample 000000000 is damaged",
        "train-000000.tar sample 000000003 is damaged",
        "test-000000.tar sample 000000030 is damaged",
    ]


def test_truncated_missing_or_relabelled_parts_are_refused_when_opened(prepared_copy: PreparedData) -> None:
    shard = Path(prepared_copy.location) / "train-000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10_240])
    with pytest.raises(DataError, match=r"train-000000\.tar is damaged: it has"):
        prepared_copy.split("train")
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar cannot be read \(No such file"):
        prepared_copy.split("train")
    shard.write_bytes(content)
    index = Path(prepared_copy.location) / "train-000000.index.npy"
    flip_bit(index, 300)
    with pytest.raises(DataError, match=r"train-000000\.index\.npy is damaged"):
        TokenStream(prepared_copy.split("train")).read(0, 1)
    index.unlink()
    with pytest.raises(DataError, match=r"train-000000\.index\.npy cannot be read"):
        prepared_copy.split("train")


def test_shard_that_shrinks_while_it_is_read_is_named(prepared_copy: PreparedData) -> None:
    stream = TokenStream(prepared_copy.split("train"))
    stream.read(0, 1)
    os.truncate(Path(prepared_copy.location) / "train-000000.tar", 70_000)
    with pytest.raises(DataError, match=r"train-000000\.tar is truncated: restore"):
        stream.read(65_000, 66_000)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"format": "longformer-examples-1"}'])
def test_damaged_manifest_is_refused(damage: bytes, prepared_copy: PreparedData) -> None:
    (Path(prepared_copy.location) / "manifest.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        PreparedData.open(prepared_copy.location)


def test_manifest_that_was_edited_is_refused(prepared_copy: PreparedData) -> None:
    path = Path(prepared_copy.location) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"examples": 28', b'"examples": 27'))
    with pytest.raises(DataError, match="fingerprint does not fit"):
        PreparedData.open(prepared_copy.location)


def test_changed_vocabulary_file_counts_as_damage(prepared_copy: PreparedData) -> None:
    path = Path(prepared_copy.location) / "vocabulary.json"
    path.write_text(path.read_text().replace("[0, 1,", "[1, 0,"))
    assert "is not the tokenizer of the manifest" in prepared_copy.find_damage()[0]


def test_folder_without_prepared_data_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no prepared data .* longformer data prepare"):
        PreparedData.open(tmp_path)
