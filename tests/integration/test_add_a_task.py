"""The task of docs/how-to/add-a-task.md, built from the code blocks of that page: it trains and predicts."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig, RobertaForMaskedLM

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "how-to" / "add-a-task.md"


def longformer(*arguments: str, directory: Path) -> str:
    """Run the command of the copy that has the task, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": f"{directory}:{REPOSITORY}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli", *arguments],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the launcher with the page's files in it, a small RoBERTa, rated texts and the page's run file."""
    folder = tmp_path_factory.mktemp("add-a-task")
    shutil.copytree(REPOSITORY / "launcher", folder / "launcher", ignore=shutil.ignore_patterns("__pycache__"))
    page = PAGE.read_text()
    files = re.findall(r"^`(launcher/tasks/\S+\.py)`\n\n```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(files) == 3
    for name, content in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    (line,) = re.findall(r'^    "rating": TaskSpec.*\n', page, re.MULTILINE)
    registry = folder / "launcher" / "tasks" / "registry.py"
    registry.write_text(registry.read_text().replace("TASKS = {\n", f"TASKS = {{\n{line}"))
    (run_file,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (folder / "stars.yaml").write_text(run_file)

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50_265, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder / "roberta")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(test_data / "tokenizer_gpt2_roberta" / name, folder / "roberta")
    generator = random.Random(0)
    (folder / "stars").mkdir()
    for split, count in (("train", 80), ("validation", 10), ("test", 10)):
        ratings = [generator.choice([1.0, 5.0]) for _ in range(count)]
        texts = [" ".join(["dull", "weak"] if rating < 3 else ["bright", "fine"]) for rating in ratings]
        lines = [json.dumps({"text": text, "rating": rating}) for text, rating in zip(texts, ratings, strict=True)]
        (folder / "stars" / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
def test_the_page_adds_a_task_that_trains_and_answers(workplace: Path) -> None:
    longformer("train", "stars.yaml", directory=workplace)
    result = workplace / "runs" / "stars" / "phases" / "01-only" / "result"
    test = json.loads((result / "evaluation.json").read_text())["test"]
    table = [json.loads(line) for line in (result / "predictions-test.jsonl").read_text().splitlines()]
    assert test["texts"] == len(table) == 10
    errors = [abs(line["rating"] - line["prediction"]) for line in table]
    assert test["mean_absolute_error"] == pytest.approx(sum(errors) / 10)
    losses = [
        json.loads(line)["loss"] for line in (workplace / "runs" / "stars" / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]
    again = json.loads(longformer("evaluate", "runs/stars", "--json", directory=workplace))
    assert again["mean_absolute_error"] == pytest.approx(test["mean_absolute_error"], rel=1e-4)
    answer = json.loads(longformer("predict", "runs/stars", "bright fine", "--json", directory=workplace))
    assert answer["task"] == "classify"
    assert (workplace / "runs" / "stars" / "report" / "report.html").is_file()
