import tarfile
from pathlib import Path

import numpy as np
import webdataset

from data_pipeline.shards.stream_dataset import PreparedData
from data_pipeline.shards.stream_shards import index_path, read_index, write_shards


def test_webdataset_itself_reads_the_shards(prepared_once: PreparedData) -> None:
    shards = sorted(str(path) for path in prepared_once.directory.glob("train-*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    stream = prepared_once.split("train")
    assert [sample["__key__"] for sample in samples] == [f"{number:06d}" for number in range(len(samples))]
    assert np.array_equal(np.concatenate([sample["tokens.npy"] for sample in samples]), stream.read(0, len(stream)))


def test_index_points_at_the_npy_files_in_the_tar(prepared_once: PreparedData) -> None:
    record = prepared_once.manifest.splits["train"]
    members = read_index(index_path(prepared_once.directory, "train"), sha256=record.index_sha256)
    assert [member.tokens for member in members[:-1]] == [65_536] * (record.samples - 1)
    for member in members:
        with tarfile.open(prepared_once.directory / member.shard) as archive:
            entry = archive.getmember(f"{member.sample}.tokens.npy")
            assert (entry.offset_data, entry.size) == (member.offset, member.size)


def test_same_tokens_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        members = write_shards(folder, "train", [np.arange(size, dtype=np.uint16) for size in range(1, 300)])
        contents.append((members, {path.name: path.read_bytes() for path in folder.iterdir()}))
    assert contents[0] == contents[1]
    assert len(contents[0][1]) == 3
