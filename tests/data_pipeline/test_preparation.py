"""Prepared documents: the same bytes for every number of workers and of kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import LocalProcesses, in_this_process
from data_pipeline.shards.prepared import PreparedData, Split
from data_pipeline.sources.corpora import TEXT, split_of
from data_pipeline.tokenizers.subword import TextTokenizer, train_tokenizer
from tests.data_pipeline.child_processes import status_when_killed
from tests.data_pipeline.preparing import prepare_documents
from tests.data_pipeline.random_texts import random_texts


def content_of(directory: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def documents_of(split: Split) -> list[np.ndarray]:
    return [example.tokens[TEXT] for example in split.examples()]


def test_the_splits_together_are_the_documents(
    documents_once: PreparedData, small_corpus: Path, small_tokenizer: TextTokenizer
) -> None:
    found = {
        small_tokenizer.decode(tokens)
        for name in ("train", "validation", "test")
        for tokens in documents_of(documents_once.split(name))
    }
    assert found == set(random_texts(400, seed=0))
    counts = [sum(shard.examples for shard in shards) for shards in documents_once.manifest.splits.values()]
    assert counts == [360, 20, 20]
    assert documents_once.find_damage() == []


@given(st.integers(0, 10**9))
def test_of_every_20_documents_one_is_for_validation_and_one_for_test(block: int) -> None:
    splits = [split_of(20 * block + place) for place in range(20)]
    assert (splits.count("train"), splits.count("validation"), splits.count("test")) == (18, 1, 1)


def test_the_shards_are_webdataset_shards(documents_once: PreparedData) -> None:
    split = documents_once.split("train")
    shards = [f"{documents_once.location}/{shard.shard_file}" for shard in split.shards]
    streamed = webdataset.WebDataset(shards, shardshuffle=False).decode()
    for sample, tokens in zip(streamed, documents_of(split), strict=True):
        assert np.array_equal(sample["text.npy"], tokens)


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_writes_the_same_bytes(
    workers: int, documents_once: PreparedData, small_corpus: Path, small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    prepare_documents(
        source=small_corpus,
        tokenizer=small_tokenizer,
        output=tmp_path / "out",
        task_map=LocalProcesses(workers),
        shard_characters=16_000,
    )
    assert content_of(tmp_path / "out") == content_of(documents_once.location)


def test_killed_at_any_file_operation_the_next_start_goes_on_to_the_same_bytes(
    documents_once: PreparedData, small_corpus: Path, small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    written: list[int] = []

    def prepare() -> None:
        prepare_documents(
            source=small_corpus,
            tokenizer=small_tokenizer,
            output=output,
            task_map=in_this_process,
            shard_characters=16_000,
        )

    # Every start is killed a little later than the one before and stands on what that one finished.
    for operation in range(3, 1_000, 5):
        status = status_when_killed(prepare, tmp_path, operation)
        assert status in (0, -signal.SIGKILL)
        if output.exists():
            break
        written.append(len(list(tmp_path.glob(".out.staging/*.record.json"))))
    assert len(written) > 10
    assert sorted(written) == written
    prepare()
    assert content_of(output) == content_of(documents_once.location)
    assert list(tmp_path.iterdir()) == [output]


def processes_named(path: Path) -> list[Path]:
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [arguments] if str(path).encode() in arguments.read_bytes() else []
    return found


def test_kill_9_of_the_whole_command_leaves_no_workers_and_the_next_start_keeps_the_finished_shards(
    small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    texts = random_texts(400, seed=3)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text * 10}) + "\n" for text in texts))
    small_tokenizer.save(tmp_path / "tokenizer.json")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from data_pipeline.prepare.parallel import LocalProcesses\n"
        "from data_pipeline.prepare.prepare import prepare\n"
        "from data_pipeline.sources.documents import documents\n"
        "from data_pipeline.tokenizers.subword import TextTokenizer\n"
        "if __name__ == '__main__':\n"
        "    here = Path(sys.argv[1])\n"
        "    prepare(documents(here / 'corpus.jsonl'), tokenizer=TextTokenizer.open(here / 'tokenizer.json'),\n"
        "        output=here / 'out', task_map=LocalProcesses(2), shard_characters=100_000)\n"
    )
    (tmp_path / "program.py").write_text(program)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, tmp_path / "program.py", tmp_path], env=os.environ | {"PYTHONPATH": "."}
        )

    process = start()
    while len(list(tmp_path.glob(".out.staging/*.record.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while processes_named(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".out.staging/*.record.json")}
    assert not (tmp_path / "out").exists()

    assert start().wait(timeout=120) == 0
    prepare_documents(
        source=tmp_path / "corpus.jsonl",
        tokenizer=small_tokenizer,
        output=tmp_path / "straight",
        task_map=in_this_process,
        shard_characters=100_000,
    )
    assert content_of(tmp_path / "out") == content_of(tmp_path / "straight")
    # What was finished before the kill was not made again.
    for record, written in finished.items():
        shard = tmp_path / "out" / record.name.replace("record.json", "tar")
        assert shard.stat().st_mtime_ns <= written


def test_unchanged_source_is_not_prepared_again_and_changed_text_is_refused(
    small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    source, output = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for number in range(30):
        (source / f"{number}.txt").write_text(f"document {number}")

    def prepare(**options: object) -> PreparedData:
        return prepare_documents(
            **(
                {"source": source, "tokenizer": small_tokenizer, "output": output, "task_map": in_this_process}
                | options
            )  # type: ignore[arg-type]
        )

    first = prepare()
    before = content_of(output)
    os.utime(source / "3.txt")
    assert prepare().fingerprint == first.fingerprint
    after = content_of(output)
    # What changes is how the source is known again.
    assert (after.pop("manifest.json"), after) != (before.pop("manifest.json"), before)
    assert after == before
    with pytest.raises(DataError, match=r"already holds documents \(field text\), not documents \(field body\)"):
        prepare(field="body")
    with pytest.raises(DataError, match=r"already holds documents .* of another tokenizer"):
        prepare(tokenizer=train_tokenizer(random_texts(50, seed=9), vocabulary_size=280))
    (source / "3.txt").write_text("another document")
    with pytest.raises(DataError, match="was prepared from other text than the source holds now"):
        prepare()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DataError, match="holds something else than prepared data"):
        prepare(output=tmp_path / "full")


def test_damaged_and_empty_documents_are_counted_and_the_damaged_named(
    small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    source = tmp_path / "lines.jsonl"
    source.write_text('{"text": "good"}\n{"text": ""}\n{"text": broken\n' + '{"text": "good too"}\n' * 40)
    prepared = prepare_documents(
        source=source, tokenizer=small_tokenizer, output=tmp_path / "out", damaged_allowed=1, task_map=in_this_process
    )
    record = prepared.manifest.corpus
    assert (record.examples, record.empty_examples, record.damaged_examples) == (42, 1, 1)
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == f"{source}:3"
    with pytest.raises(DataError, match=r"lines\.jsonl:3 is damaged: .* 1 damaged samples are more than the 0 allowed"):
        prepare_documents(
            source=source, tokenizer=small_tokenizer, output=tmp_path / "strict", task_map=in_this_process
        )


def test_a_split_whose_documents_are_all_empty_is_refused_when_it_is_asked_for(
    small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    texts = ["" if split_of(number) == "test" else "text" for number in range(25)]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepared = prepare_documents(
        source=tmp_path / "lines.jsonl", tokenizer=small_tokenizer, output=tmp_path / "out", task_map=in_this_process
    )
    assert prepared.find_damage() == []
    assert sum(len(documents_of(prepared.split(split))) for split in ("train", "validation")) == texts.count("text")
    with pytest.raises(DataError, match="holds no documents for test: prepare more than 20 documents"):
        prepared.split("test")


def test_a_source_without_text_is_refused(small_tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="holds no text: nothing to prepare"):
        prepare_documents(
            source=tmp_path / "lines.jsonl",
            tokenizer=small_tokenizer,
            output=tmp_path / "out",
            task_map=in_this_process,
        )


def test_a_killed_worker_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a worker process was killed"):
        list(LocalProcesses(1)(_kill_myself, [1, 2]))


def _kill_myself(task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(small_tokenizer: TextTokenizer, tmp_path: Path) -> None:
    small_tokenizer.save(tmp_path / "tokenizer.json")

    def peak_of(copies: int) -> int:
        source = tmp_path / f"{copies}.jsonl"
        with source.open("w") as file:
            for text in random_texts(1_000, seed=1) * copies:
                file.write(json.dumps({"text": text}) + "\n")
        with get_context("spawn").Pool(1) as process:  # what a fork shares with this process would count too
            return process.apply(_peak_of_preparing, (source, tmp_path / "tokenizer.json", tmp_path / f"{copies}"))

    small, large = peak_of(20), peak_of(80)  # the small one fills all buffers already
    assert (tmp_path / "80.jsonl").stat().st_size - (tmp_path / "20.jsonl").stat().st_size > 30_000_000
    assert large - small < 5_000_000


def _peak_of_preparing(source: Path, tokenizer: Path, output: Path) -> int:
    """Return the largest resident size in bytes of a process that prepares a corpus."""
    prepare_documents(
        source=source,
        tokenizer=TextTokenizer.open(tokenizer),
        output=output,
        task_map=in_this_process,
        shard_characters=500_000,
    )
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def test_few_tasks_are_taken_ahead_of_the_results() -> None:
    taken = []

    def tasks() -> object:
        for number in range(20):
            taken.append(number)
            yield number

    for number, result in enumerate(LocalProcesses(2)(abs, tasks())):  # type: ignore[arg-type]
        assert result == number
        assert len(taken) <= number + 4
