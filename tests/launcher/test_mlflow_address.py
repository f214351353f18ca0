"""Claims about the address of MLflow: which kinds there are, which one counts, and that no password is written down."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.config.load import load
from launcher.config.mlflow_address import ADDRESS_VARIABLE, address_here, address_of_run, without_credentials
from longformer.errors import LongformerError
from tests.launcher.example_run import QUICKSTART

WORDS = st.text(alphabet="abcXYZ019-_.:%$@", min_size=1)


@given(user=WORDS, password=WORDS, before=WORDS)
def test_text_about_an_address_loses_its_credentials_and_nothing_else(user: str, password: str, before: str) -> None:
    text = f"{before} request to https://{user}:{password}@host:5000/api failed, see http://host"
    assert without_credentials(text) == f"{before} request to https://host:5000/api failed, see http://host"
    assert without_credentials(before) == before


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("https://me:unguessable@host", r"tracking\.uri must not hold a name or password.*MLFLOW_TRACKING_USERNAME"),
        (
            "postgresql://host/mlflow",
            r"tracking\.uri should be an MLflow server \(http://host:5000\) or an SQLite file",
        ),
        ("./mlruns", r"tracking\.uri should be an MLflow server"),
    ],
)
def test_address_of_a_kind_that_cannot_be_kept_is_refused_in_the_run_file(address: str, sentence: str) -> None:
    with pytest.raises(LongformerError, match=sentence) as refusal:
        load(QUICKSTART, [f"tracking.uri={address}"])
    assert "unguessable" not in str(refusal.value)


def test_run_file_comes_before_the_environment_and_the_environment_before_the_folder_of_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    beside = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    assert (address_of_run(None, Path("runs/a")), address_here()) == (beside, beside)
    monkeypatch.setenv(ADDRESS_VARIABLE, "http://here")
    assert (address_of_run(None, Path("runs/a")), address_here()) == ("http://here", "http://here")
    assert address_of_run("http://written", Path("runs/a")) == "http://written"
