"""A small corpus, prepared once for all tests of the data pipeline, and a copy that may be damaged."""

import random
import shutil
from pathlib import Path

import pytest

from data_pipeline.prepared import PreparedData
from data_pipeline.recipes import prepare


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
    return prepare("text", source=small_text, output=tmp_path_factory.mktemp("prepared") / "small")


@pytest.fixture
def prepared_copy(prepared_once: PreparedData, tmp_path: Path) -> PreparedData:
    """The small text prepared, for a test to damage."""
    return PreparedData.open(shutil.copytree(prepared_once.directory, tmp_path / "copy"))
