"""Runs on real questions and documents, killed in the middle, go on with another number of ranks."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.config.load import load
from launcher.tasks.registry import task_of
from launcher.training.phases import Status
from tests.faults.tiny_run import TinyRun, kill_all_ranks
from tests.small_roberta import write_small_roberta

Section = dict[str, Any]
STEPS = 6
SMALL = {"coreference": {"head": {"kind": "start_to_end", "head_size": 16, "dropout": 0.0}}}


def extractive_qa(data: Path, folder: Path) -> Section:
    copies(data / "musique_100" / "musique_train_100.json.xz", folder)
    return {"source": str(folder), "context": "paragraphs.paragraph_text", "answers": ["answer", "answer_aliases"]}


def triviaqa(data: Path, folder: Path) -> Section:
    with tarfile.open(data / "triviaqa_sample" / "triviaqa-sample.tgz") as archive:
        archive.extractall(folder)
    shutil.copy(folder / "qa" / "wikipedia-dev.json", folder / "qa" / "verified-wikipedia-dev.json")
    return {"source": str(folder)}


def wikihop(data: Path, folder: Path) -> Section:
    return {"source": str(data / "wikihop_samples"), "benchmark": "wikihop"}


def hotpotqa(data: Path, folder: Path) -> Section:
    copies(data / "hotpotqa_100" / "hotpot_dev_distractor_first100.json", folder)
    return {"source": str(folder)}


def coreference(data: Path, folder: Path) -> Section:
    with tarfile.open(data / "coref_litbank" / "litbank_conll.tar.xz") as archive:
        archive.extractall(folder)
    return {"source": str(folder)}


def copies(file: Path, folder: Path) -> None:
    """Copies a file of questions to each split."""
    folder.mkdir()
    for split in ("train", "validation", "test"):
        shutil.copy(file, folder / "".join([split, *file.suffixes]))


@pytest.mark.slow
@pytest.mark.parametrize("section", [extractive_qa, triviaqa, wikihop, hotpotqa, coreference])
def test_a_run_killed_and_resumed_on_another_number_of_ranks_follows_the_undisturbed_one(
    section: Callable[[Path, Path], Section], test_data: Path, tmp_path: Path
) -> None:
    write_small_roberta(tmp_path / "roberta", test_data)
    phase = {"name": "answer", "sequence_length": 256, "learning_rate": 1e-2, "steps": STEPS, "batch_size": 4}
    content = {
        "name": "answers",
        "task": section.__name__,
        "model": {"source": str(tmp_path / "roberta"), "max_length": 256, "window": 32},
        "data": {"directory": str(tmp_path / "prepared"), **section(test_data, tmp_path / "source")},
        "training": {"zero_stage": 1, "checkpoint_every_steps": 2},
        "phases": [phase | {"micro_batch_size": 2}],
        "evaluation": {"limit_documents": 2},
        **SMALL.get(section.__name__, {}),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    config = load(tmp_path / "run.yaml")
    task = task_of(config)
    data = task.data.prepare()

    def new_run(name: str) -> TinyRun:
        run = TinyRun(tmp_path / name, config, data)
        task.write_start(run.run.paths.start_directory)
        return run

    expected, run = new_run("expected"), new_run("run")
    assert expected.go().status is Status.COMPLETED
    with run.disturbed_at(3, kill_all_ranks):
        assert run.go().status is Status.FAILED
    run.run = run.run.continued_with(config, ranks=1, data_fingerprint=data.fingerprint)
    run.ranks = 1
    assert run.go().status is Status.COMPLETED
    assert [step for step, _ in run.losses()] == list(range(1, STEPS + 1))
    assert [loss for _, loss in run.losses()] == pytest.approx([loss for _, loss in expected.losses()], rel=1e-3)
