"""From real reviews to a classifier: made long, interrupted, resumed on other ranks, evaluated, registered, asked."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.cli import main
from tests.launcher.test_html_report import Reader, has_ink
from tests.small_roberta import write_small_roberta

STEPS = 8
RUN_FILE = """
name: reviews
task: sequence_classification
model: {source: roberta, max_length: 256, window: 32}
data: {directory: prepared, source: IMDB, bucket_batches: 4}
training: {zero_stage: 1, gradient_clipping: 1.0, checkpoint_every_steps: 2}
phases:
- {name: classify, sequence_length: 256, learning_rate: 1.0e-3, steps: 8, batch_size: 8, micro_batch_size: 4}
evaluation: {batch_size: 8, limit_documents: 30}
"""


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa of random weights, RoBERTa's tokenizer, and a run file for the sample of IMDB."""
    folder = tmp_path_factory.mktemp("classification")
    write_small_roberta(folder / "roberta", test_data)
    (folder / "run.yaml").write_text(RUN_FILE.replace("IMDB", str(test_data / "imdb")))
    return folder


def command(workplace: Path, *arguments: str) -> subprocess.Popen:
    """Start the command as a person would, where signals reach it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "launcher.cli", *arguments], cwd=workplace, env=environment)


def losses(run: Path) -> list[float]:
    file = run / "metrics.jsonl"
    return [json.loads(line)["loss"] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
def test_reviews_are_classified_across_an_interruption_and_another_number_of_ranks(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, run = workplace / "runs" / "straight", workplace / "runs" / "reviews"
    assert command(workplace, "check", "run.yaml").wait(120) == 0
    assert command(workplace, "train", "run.yaml", "name=straight").wait(400) == 0
    auto = ("phases.0.micro_batch_size=auto", "training.activation_checkpointing=auto")
    training = command(workplace, "train", "run.yaml", "tracking.register_as=reviews", *auto, "--ranks", "2")
    while len(losses(run)) < 3 and training.poll() is None:
        time.sleep(0.05)
    training.send_signal(signal.SIGTERM)
    training.wait(120)
    assert 3 <= len(losses(run)) <= STEPS
    assert command(workplace, "resume", "runs/reviews", "--ranks", "1").wait(400) == 0
    assert losses(run) == pytest.approx(losses(straight), rel=1e-3)
    assert len(losses(run)) == STEPS
    log = (run / "logs" / "phase-01-rank-0.log").read_text()
    assert [f"micro-batches of {size}, layers not computed again" in log for size in (4, 8, 2)] == [True, True, False]

    result = run / "phases" / "01-classify" / "result"
    test = json.loads((result / "evaluation.json").read_text())["test"]
    table = [json.loads(line) for line in (result / "predictions-test.jsonl").read_text().splitlines()]
    assert test["texts"] == len(table) == 30
    assert test["accuracy"] == pytest.approx(sum(line["label"] == line["prediction"] for line in table) / 30)
    in_report = json.loads((run / "report" / "tables" / "predictions-test.json").read_text())
    assert in_report["columns"] == ["text", "tokens", "label", "prediction", "0", "1"]
    page = Reader((run / "report" / "report.html").read_text())
    assert all(map(has_ink, page.pictures()))
    for told in ("test: accuracy", "Surest mistakes", "TF-IDF and a linear model", "Does reading more help?"):
        assert told in page.text

    monkeypatch.chdir(workplace)
    assert main(["evaluate", "runs/reviews", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(test["accuracy"])
    assert json.loads((run / "export" / "config.json").read_text())["id2label"] == {"0": "0", "1": "1"}
    assert main(["predict", "runs/reviews", table[0]["text"], "--json"]) == 0
    from_run = json.loads(capsys.readouterr().out)["result"]
    assert {each["text"] for each in from_run} == {"0", "1"}
    assert main(["promote", "reviews", "--if", f"accuracy >= {test['accuracy']}"]) == 0
    capsys.readouterr()
    assert main(["predict", "models:/reviews@champion", table[0]["text"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == from_run


PROBLEMS = {
    "several": "problem: multi_label, label: [even, small], class_weights: balanced, long_documents: windows",
    "number": "problem: regression, label: number, long_documents: truncate_begin",
    "one": "label: parity, class_weights: {odd: 1.0, even: 2.0}, long_documents: windows",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_labels_of_every_kind_are_learned_and_the_export_predicts_what_the_run_reported(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts are longer than the sequences, so all ways of reading them count."""
    with (workplace / "numbers.jsonl").open("w") as file:
        for number in range(240):
            words = [["even", "odd"][number % 2], "small" if number < 100 else "large"]
            text = " ".join(words * (1 + number % 4))
            labels = {"even": 1 - number % 2, "small": number < 100, "number": number / 100}
            file.write(json.dumps({"text": text, "parity": ["even", "odd"][number % 2]} | labels) + "\n")
    (workplace / f"{name}.yaml").write_text(f"""
name: {name}
task: sequence_classification
model: {{source: roberta, max_length: 64, window: 16}}
data: {{directory: {name}-data, source: numbers.jsonl, {PROBLEMS[name]}}}
training: {{zero_stage: 0, gradient_clipping: 1.0}}
phases:
- {{name: only, sequence_length: 6, learning_rate: 1.0e-2, steps: 80, batch_size: 8}}
""")
    monkeypatch.chdir(workplace)
    assert main(["train", f"{name}.yaml"]) == 0
    result = Path("runs", name, "phases", "01-only", "result")
    test = json.loads((result / "evaluation.json").read_text())["test"]
    assert test["longer_texts"] > 0
    if name == "number":
        assert test["mean_absolute_error"] < 0.8
    else:
        assert test["macro_f1"] > 0.6
    capsys.readouterr()
    table = [json.loads(line) for line in (result / "predictions-test.jsonl").read_text().splitlines()]
    for line in table:
        assert main(["predict", f"runs/{name}/export", line["text"], "--json"]) == 0
        found = {each["text"]: each["score"] for each in json.loads(capsys.readouterr().out)["result"]}
        expected = line.get("scores", {"number": line["prediction"]})
        assert found == pytest.approx(expected, abs=1e-5)
