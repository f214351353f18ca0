"""Fixtures shared by all tests: where the real data is, and a quiet, single-threaded torch."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data sets, or skip the test with the reason where it is absent."""
    folder = Path(os.environ.get("LONGFORMER_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}; set LONGFORMER_TEST_DATA")
    return folder
