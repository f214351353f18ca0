"""Every command of the README runs, in order and as it is written, in a clone whose run files have few steps.

What stands there as path/to/... is small. Commands whose comment says `# needs 8 GPUs` are left out.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from tokenizers import ByteLevelBPETokenizer

from longformer import models
from tests.conftest import REPOSITORY
from tests.docs_commands import Command, blocks, commands

pytestmark = pytest.mark.slow
README = REPOSITORY / "README.md"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
PAPERS = [page.read_text(encoding="utf-8") for page in sorted((REPOSITORY / "docs" / "how-to").glob("*.md"))]
SERVER = "http://127.0.0.1:5000/health"
"""Where both servers of the README answer."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds after `make setup`, with less to do in its run files, and what the commands name."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    for file in (folder / "configs" / "run").glob("*.yaml"):
        file.write_text(yaml.safe_dump(shortened(yaml.safe_load(file.read_text(encoding="utf-8")))))
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / ".ready").touch()
    (folder / "paper.txt").write_text(PAPERS[0])
    (folder / "review.txt").write_text("A film about long documents.")
    texts = folder / "path" / "to"
    (texts / "documents").mkdir(parents=True)
    for number, text in enumerate(PAPERS):
        (texts / "documents" / f"{number}.txt").write_text(text)
    write_lines(texts / "jsonl", "train", [{"text": text} for text in PAPERS])
    write_lines(texts / "papers", "train", [{"article": text, "abstract": text[:300]} for text in PAPERS * 3])
    for split in ("train", "test"):
        write_lines(texts / "reviews", split, [{"text": text[:500], "label": len(text) % 2} for text in PAPERS * 3])
    write_models(texts)
    return folder


def shortened(run_file: dict[str, Any]) -> dict[str, Any]:
    """Returns a run file with few steps; the quickstart keeps enough to learn, with two smaller layers."""
    is_quickstart = run_file["name"] == "quickstart"
    if is_quickstart:
        run_file["model"] |= {"layers": 2, "hidden_size": 64, "feedforward_size": 128}
    for phase in run_file.get("phases", []):
        phase.pop("epochs", None)
        phase["steps"] = min(phase.get("steps", 5), 50 if is_quickstart else 5)
        phase["warmup_steps"] = min(phase.get("warmup_steps", 0), phase["steps"])
        if is_quickstart:
            phase["windows"] = phase["windows"][-2:]
    return run_file


def write_lines(folder: Path, split: str, records: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def write_models(folder: Path) -> None:
    """Writes small models of random weights with a tokenizer of their own."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(PAPERS, vocab_size=1000, special_tokens=SPECIAL, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    roberta = transformers.RobertaConfig(
        vocab_size=1000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=514, type_vocab_size=1,
    )  # fmt: skip
    layers: dict[str, Any] = {
        f"{part}_{what}": value
        for part in ("encoder", "decoder")
        for what, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    bart = transformers.BartConfig(vocab_size=1000, d_model=16, max_position_embeddings=1024, **layers)
    led = models.LEDConfig(
        vocab_size=1000, d_model=16, attention_window=32, max_encoder_position_embeddings=2048,
        max_decoder_position_embeddings=64, **layers,
    )  # fmt: skip
    transformers.RobertaForMaskedLM(roberta).save_pretrained(folder / "roberta-base")
    transformers.BartForConditionalGeneration(bart).save_pretrained(folder / "bart-large")
    written = models.LEDForConditionalGeneration(led)
    written.initialise()
    written.save_pretrained(folder / "led-large-16384-arxiv")
    for name in ("roberta-base", "bart-large", "led-large-16384-arxiv"):
        tokenizer.save_model(str(folder / name))


def run(command: Command, before: list[str], clone: Path) -> None:
    """Runs a line in a shell in which the lines `before` it have been read."""
    shell = ["bash", "-ec", "\n".join([*before, command.text])]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = clone / "printed.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            shell, cwd=clone, env=settings, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        if command.is_server:
            while not answers():
                assert process.poll() is None, f"{command.text}\n{log.read_text()}"
                time.sleep(0.5)
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
        else:
            assert process.wait() == 0, f"{command.text}\n{log.read_text()}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in log.read_text(), f"{command.text}\n{log.read_text()}"


def answers() -> bool:
    try:
        return bool(urllib.request.urlopen(SERVER, timeout=5).status == 200)
    except OSError:
        return False


def test_every_command_runs(clone: Path) -> None:
    shell_state: list[str] = []
    left_out = []
    for command in commands(README, "bash"):
        began = time.monotonic()
        if command.needs is not None:
            left_out.append(command)
            continue
        run(command, shell_state, clone)
        if command.text.startswith("source "):
            shell_state.append(command.text)
        print(f"{time.monotonic() - began:6.1f} s  {command.text}")
    for command in left_out:
        print(f"left out, needs {command.needs}: {command.text}")
    assert len(left_out) < 15


def test_every_piece_of_python_runs(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    longformer = transformers.LongformerConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        attention_window=8, max_position_embeddings=100,
    )  # fmt: skip
    if not Path("path/to/longformer").exists():
        transformers.LongformerModel(longformer).save_pretrained("path/to/longformer")
    query, key, value = torch.randn(3, 1, 600, 2, 8)
    is_real = torch.ones(1, 600, dtype=torch.bool)
    is_first = torch.arange(600)[None] == 0
    names = {"transformers": transformers, "query": query, "key": key, "value": value}
    for piece in blocks(README, "python"):
        exec(piece, names | {"is_real": is_real, "is_first": is_first})
