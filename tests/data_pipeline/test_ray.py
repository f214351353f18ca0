"""Preparation on a real Ray cluster of this machine."""

from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.prepare.prepare import ShardTask, tokenise_shard
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import RawExample
from data_pipeline.tokenizers.subword import TextTokenizer
from data_pipeline.tokenizers.tokenizer import TokenizerRecord
from longformer.errors import LongformerError
from tests.data_pipeline.preparing import prepare_documents
from tests.data_pipeline.test_preparation import content_of

pytest.importorskip("ray", reason="Ray is not installed (pip install 'longformer-train[ray]')")


@pytest.mark.slow
def test_a_ray_cluster_writes_the_same_bytes(
    documents_once: PreparedData, small_corpus: Path, small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    from launcher.backends.ray.task_map import RayTasks

    prepare_documents(
        source=small_corpus,
        tokenizer=small_tokenizer,
        output=tmp_path / "out",
        task_map=RayTasks("local"),
        shard_characters=16_000,
    )
    assert content_of(tmp_path / "out") == content_of(documents_once.location)


@pytest.mark.slow
def test_no_cluster_and_a_failed_task_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.backends.ray.task_map import RayTasks

    with monkeypatch.context() as environment:
        environment.setenv("RAY_ADDRESS", "127.0.0.1:1")  # as a cluster that died leaves it behind
        with pytest.raises(LongformerError, match=r"no Ray cluster on this machine \(Connection refused\)"):
            RayTasks("auto")
    record = TokenizerRecord(file="tokenizer.json", sha256="", vocabulary_size=300, token_type="uint16", special=None)
    task = ShardTask(tmp_path, record, "train", "train-000000", [(0, RawExample({"text": "text"}))], words=(), spans=())
    with pytest.raises(DataError, match=r"a task failed on the Ray cluster: .* cannot be read"):
        list(RayTasks("local")(tokenise_shard, [task]))
