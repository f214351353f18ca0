"""From real papers to a summarizer: made long, taught in phases, interrupted, resumed on other ranks, registered."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import BartConfig, BartForConditionalGeneration

from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.summaries import DOCUMENT, SUMMARY, summaries
from data_pipeline.tokenizers.subword import train_tokenizer
from launcher.cli import main
from launcher.config.load import load
from launcher.tasks.registry import data_of
from tests.launcher.test_html_report import Reader, has_ink

STEPS = (14, 6)
RUN_FILE = """
name: papers
task: summarization
model: {source: bart, max_length: 2048, window: 64}
data: {directory: prepared, source: papers, target_length: 48, label_smoothing: 0.1}
training: {zero_stage: 3, gradient_clipping: 1.0, checkpoint_every_steps: 4, activation_checkpointing: true}
phases:
- {name: short, sequence_length: 512, learning_rate: 3.0e-3, steps: 14, batch_size: 4, micro_batch_size: 2}
- {name: long, sequence_length: 2048, learning_rate: 1.0e-3, steps: 6, batch_size: 4, micro_batch_size: 2}
evaluation: {batch_size: 2, num_beams: 2, max_length: 24, min_length: 8}
"""


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real papers, cut short, a small BART of random weights with a tokenizer, and a run file."""
    folder = tmp_path_factory.mktemp("summarization")
    (folder / "papers").mkdir()
    corpus = summaries(test_data / "sumpubmed", "sumpubmed")
    kept: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    texts = []
    for sample in corpus.read(DocumentReader(corpus.files), Quarantine(0)):
        lines = kept[sample.split or ""]
        if len(lines) < (80 if sample.split == "train" else 3):
            document = str(sample.texts[DOCUMENT])[:2_500]
            lines.append(json.dumps({"document": document, "summary": sample.texts[f"{SUMMARY}0"]}) + "\n")
            texts.append(document)
    for split, lines in kept.items():
        (folder / "papers" / f"{split}.jsonl").write_text("".join(lines))
    tokenizer = train_tokenizer(texts, vocabulary_size=1_000)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=1_000, max_position_embeddings=128, d_model=48, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96, dropout=0.0,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder / "bart")
    Tokenizer.from_str(tokenizer.content).model.save(str(folder / "bart"))
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


def command(workplace: Path, *arguments: str) -> subprocess.Popen:
    """Start the command as a person would, where Ctrl-C and signals reach it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "launcher.cli", *arguments], cwd=workplace, env=environment)


def steps(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def losses(run: Path) -> list[float]:
    return [step["loss"] for step in steps(run)]


def planned_tokens(capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Tokens of each phase as `longformer plan` says them."""
    capsys.readouterr()
    assert main(["plan", "run.yaml", "--json"]) == 0
    return [phase["tokens"] for phase in json.loads(capsys.readouterr().out)["phases"]]


def test_the_plan_counts_what_is_read_and_written_once_the_data_shows_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    assert main(["plan", "run.yaml", "data.directory=absent", "--json"]) == 0
    full = [phase["tokens"] for phase in json.loads(capsys.readouterr().out)["phases"]]
    assert full == [14 * 4 * (512 + 48), 6 * 4 * (2048 + 48)]

    data = data_of(load(Path("run.yaml"), []))
    data.prepare()
    counted = []
    for index, count in enumerate((14 * 4, 6 * 4)):
        sequences = data.sequences(index)
        some = [sequences.sequence(position) for position in range(count)]
        counted.append(sum(len(each["input_ids"]) + len(each["labels"]) for each in some))
    assert planned_tokens(capsys) == counted
    assert counted[1] < full[1] / 2, "the papers were cut short"


@pytest.mark.slow
def test_papers_become_a_summarizer_across_an_interruption_and_another_number_of_ranks(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    straight, run = workplace / "runs" / "straight", workplace / "runs" / "papers"
    assert command(workplace, "train", "run.yaml", "name=straight").wait(300) == 0
    training = command(workplace, "train", "run.yaml", "tracking.register_as=papers", "--ranks", "2")
    while len(losses(run)) < 6 and training.poll() is None:
        time.sleep(0.1)
    training.send_signal(signal.SIGTERM)
    training.wait(120)
    assert 6 <= len(losses(run)) < sum(STEPS)
    assert command(workplace, "resume", "runs/papers", "--ranks", "1").wait(300) == 0

    found = losses(run)
    assert found == pytest.approx(losses(straight), rel=1e-3)
    assert len(found) == sum(STEPS)
    assert [step["tokens"] for step in steps(run)] == [step["tokens"] for step in steps(straight)]
    results = sorted(run.glob("phases/*/result/evaluation.json"))
    trained = [json.loads(result.read_text())["tokens"] for result in results]
    assert trained == planned_tokens(capsys)
    assert sum(trained) == steps(run)[-1]["tokens"]
    assert sum(found[10:14]) < sum(found[:4]) - 4 * 0.3

    result = run / "phases" / "02-long" / "result"
    scores = json.loads((result / "evaluation.json").read_text())["test"]
    table = [json.loads(line) for line in (result / "summaries-test.jsonl").read_text().splitlines()]
    assert scores["documents"] == len(table) == 3
    assert scores["rouge1"] == pytest.approx(sum(line["scores"]["rouge1"] for line in table) / 3)
    assert 0 < scores["lead"]["rouge1"] < scores["oracle"]["rouge1"]
    in_mlflow = json.loads((run / "report" / "tables" / "summaries-test.json").read_text())
    assert [row[0] for row in in_mlflow["data"]] == [line["identifier"] for line in table]

    page = Reader((run / "report" / "report.html").read_text())
    assert all(map(has_ink, page.pictures()))
    # Loss, learning rate, lengths, ROUGE by length, attention, throughput, MFU.
    assert len(page.pictures()) == 7
    assert all(text in page.text for text in ("Does reading more help?", table[0]["prediction"], "Attention", "Memory"))

    # The registered model, by itself and with the settings that it keeps, writes what was judged.
    assert main(["promote", "papers", "--if", f"rouge1 > {scores['rouge1']}"]) == 1
    assert main(["promote", "papers", "--if", f"rouge1 >= {scores['rouge1']}"]) == 0
    capsys.readouterr()
    for line in table:
        Path("document.txt").write_text(line["document"])
        assert main(["predict", "models:/papers@champion", "document.txt", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["result"] == line["prediction"]
