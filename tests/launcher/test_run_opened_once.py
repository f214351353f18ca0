"""A command reads every YAML file of a run at most once, however many parts of the launcher work on the run."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.config import yaml_file
from tests.faults.tiny_run import prepare_text, tiny_config


def test_train_resume_and_evaluate_parse_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, prepare_text(tmp_path), steps=(4, 4))
    run = tmp_path / "runs" / config.name
    parsed = counted_parses(monkeypatch)

    def parses_of(*command: str) -> dict[str, int]:
        parsed.clear()
        assert main([*command]) == 0
        return dict(parsed)

    train = ("train", str(tmp_path / "tiny.yaml"), f"data.source={tmp_path / 'words.txt'}", "--run-directory", str(run))
    assert parses_of(*train) == {"tiny.yaml": 1}
    assert parses_of(*train, "training.checkpoints_kept=3") == {"tiny.yaml": 1, "run.yaml": 1}, "to compare the two"
    assert parses_of("resume", str(run)) == {"run.yaml": 1}
    assert parses_of("evaluate", str(run)) == {"run.yaml": 1}
    assert parses_of("status", str(run)) == {"run.yaml": 1}


def counted_parses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Returns how often each YAML file is parsed from now on, by its name."""
    parsed: Counter[str] = Counter()
    parse = yaml_file._parse

    def counting(path: Path) -> dict[str, Any]:
        parsed[path.name] += 1
        return parse(path)

    monkeypatch.setattr(yaml_file, "_parse", counting)
    return parsed
