"""A small text and a small corpus, prepared once for all tests of the data pipeline, and copies that may be damaged."""

import json
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.tokenizers.subword import TextTokenizer, train_tokenizer
from tests.data_pipeline.preparing import prepare_characters, prepare_documents
from tests.data_pipeline.random_texts import random_texts


@pytest.fixture(scope="session")
def small_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 2,000,000 bytes: more than one sample in every split."""
    words = [b"long", b"documents", b"are", b"read", b"in", b"one", b"piece.\n"]
    path = tmp_path_factory.mktemp("source") / "small.txt"
    path.write_bytes(b" ".join(random.Random(0).choices(words, k=500_000))[:2_000_000])
    return path


@pytest.fixture(scope="session")
def prepared_once(small_text: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The small text prepared; not to be changed."""
    return prepare_characters("text", source=small_text, output=tmp_path_factory.mktemp("prepared") / "small")


@pytest.fixture
def prepared_copy(prepared_once: PreparedData, tmp_path: Path) -> PreparedData:
    """The small text prepared, for a test to damage."""
    return PreparedData.open(shutil.copytree(prepared_once.location, tmp_path / "copy"))


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 400 documents as JSON lines in two files."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = random_texts(400, seed=0)
    for name, part in (("one.jsonl", texts[:150]), ("two.jsonl", texts[150:])):
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return folder


@pytest.fixture(scope="session")
def small_tokenizer() -> TextTokenizer:
    """A byte-level BPE of 300 tokens."""
    return train_tokenizer(random_texts(50, seed=1), vocabulary_size=300)


@pytest.fixture(scope="session")
def documents_once(
    small_corpus: Path, small_tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> PreparedData:
    """The small corpus prepared, about 10 shards for training; not to be changed."""
    return prepare_documents(
        source=small_corpus,
        tokenizer=small_tokenizer,
        output=tmp_path_factory.mktemp("documents") / "small",
        task_map=in_this_process,
        shard_characters=16_000,
    )


@pytest.fixture
def documents_copy(documents_once: PreparedData, tmp_path: Path) -> PreparedData:
    """The small corpus prepared, for a test to damage."""
    return PreparedData.open(shutil.copytree(documents_once.location, tmp_path / "copy"))


@pytest.fixture(scope="session")
def litbank(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of LitBank's 100 books, unpacked."""
    folder = tmp_path_factory.mktemp("litbank")
    with tarfile.open(test_data / "coref_litbank" / "litbank_conll.tar.xz") as archive:
        archive.extractall(folder)
    return folder
