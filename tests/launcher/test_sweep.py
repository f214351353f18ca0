"""Seeds are runs of a sweep: trained one after the other, and summed up as mean and standard deviation."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from launcher.cli import main
from launcher.reporting.sweep_summary import summarize_sweep
from launcher.runs.paths import RunPaths
from launcher.runs.sweep import combinations, record_sweep, run_of
from longformer.files import read_json, write_json


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a few steps."""
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("the quick brown fox jumps over the lazy dog " * 100)
    content = {
        "name": "seeds",
        "model": {"layers": 1, "hidden_size": 8, "heads": 2, "feedforward_size": 8},
        "data": {"recipe": "text", "source": "words.txt", "directory": "prepared"},
        "phases": [
            {"name": "only", "sequence_length": 16, "windows": [4], "learning_rate": 1e-2, "batch_size": 4, "steps": 4}
        ],
        "evaluation": {"sequence_length": 32, "stride": 16, "limit_tokens": 64},
    }
    Path("run.yaml").write_text(yaml.safe_dump(content))
    return Path("run.yaml")


def test_seeds_are_trained_one_after_the_other_and_summed_up(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(run_file), "--sweep", "seed=1,2"]
    assert main(command) == 0
    assert "2 of 2" in capsys.readouterr().out
    found = [
        read_json(Path(f"runs/seeds/{index}/phases/01-only/result/evaluation.json"))["test"]["bits_per_character"]
        for index in range(2)
    ]
    assert found[0] != found[1]
    assert main(["runs", "summary", "runs/seeds", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)
    score = group["scores"]["test"]["bits_per_character"]
    assert score == {
        "mean": pytest.approx(np.mean(found)), "std": pytest.approx(np.std(found, ddof=1)), "values": found
    }  # fmt: skip

    written = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.jsonl")}
    assert main(command) == 0, "nothing is left to do"
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert main(["train", str(run_file), "--sweep", "seed=7,8"]) == 2
    assert "runs/seeds holds a sweep of seed=1 and others" in capsys.readouterr().err


def test_runs_of_other_values_are_apart_and_unfinished_ones_are_counted(
    tmp_path: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = RunPaths(tmp_path / "sweep")
    record_sweep(sweep, combinations(["phases.0.learning_rate=1,2", "seed=1,2,3"]))
    assert main(["status", str(sweep.root)]) == 0
    assert capsys.readouterr().out.count("waiting") == 6
    for index, score in [(0, 0.5), (2, 0.75), (4, 0.25)]:
        paths = run_of(sweep, index)
        paths.root.mkdir()
        write_json(paths.root / "run.yaml", yaml.safe_load(run_file.read_text()))
        write_json(
            paths.root / "identity.json",
            {
                "created": "",
                "ranks": 1,
                "config_fingerprint": "",
                "data_directory": "",
                "data_fingerprint": "",
            },
        )
        scores = {split: {"bits_per_character": score} for split in ("validation", "test")}
        (paths.root / "phases" / "01-only" / "result").mkdir(parents=True)
        write_json(paths.root / "phases" / "01-only" / "result" / "evaluation.json", scores)
    first, second = summarize_sweep(sweep)
    assert (first.values, first.runs, first.finished) == ("phases.0.learning_rate=1", 3, 2)
    assert str(first.scores["test"]["bits_per_character"]) == "0.6250 ± 0.1768"
    assert (second.values, second.finished) == ("phases.0.learning_rate=2", 1)
    assert second.scores["test"]["bits_per_character"].std is None
