"""Claim: whatever a run reports is what its export answers, from the text alone, in each family's own format."""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from launcher.cli import main
from launcher.config.load import load
from launcher.reporting.html import Table
from launcher.runs.run import Run
from launcher.tasks.registry import task_of, task_of_run
from tests.interop.tokenizer_folders import byte_level, unigram, word_pieces

ENCODER = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 66, "initializer_range": 0.3,
}  # fmt: skip
WRITER = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.5,
}  # fmt: skip
POSITIONS = {"max_position_embeddings": 64}
LED_POSITIONS = {"attention_window": 8, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}
PHASE = {"name": "only", "sequence_length": 128, "learning_rate": 1e-2, "steps": 4, "batch_size": 4}
LETTERS = 40
"""Of a document; so many have no hidden letter that another stands for, which a text could not show."""
WORDS = ("the", "court", "says", "<s>100</s>", "old", "price", "[MASK]", "now", "80", "Äpfel", "den")


def slow(*values: str) -> Any:
    """Return a case for the whole suite only."""
    return pytest.param(*values, marks=pytest.mark.slow)


def make_source(family: str, folder: Path) -> None:
    """Write a small model of random weights with a small tokenizer of its family."""
    folder.mkdir()
    torch.manual_seed(0)
    if family in ("roberta", "bart", "led"):
        byte_level(folder)
        size = 264
    elif family == "bert":
        word_pieces(folder)
        size = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    else:
        name = {"mbart": "MBart", "mbart-50": "MBart50", "xlm-roberta": "XLMRoberta"}[family]
        languages = {"src_lang": "de_DE"} if family.startswith("mbart") else {}
        size = len(unigram(getattr(transformers, f"{name}Tokenizer"), folder, **languages))
    name, head, shape = {
        "roberta": ("Roberta", "ForMaskedLM", ENCODER),
        "xlm-roberta": ("XLMRoberta", "ForMaskedLM", ENCODER),
        "bert": ("Bert", "ForMaskedLM", ENCODER),
        "bart": ("Bart", "ForConditionalGeneration", WRITER | POSITIONS),
        "mbart": ("MBart", "ForConditionalGeneration", WRITER | POSITIONS),
        "mbart-50": ("MBart", "ForConditionalGeneration", WRITER | POSITIONS),
        "led": ("LED", "ForConditionalGeneration", WRITER | LED_POSITIONS),
    }[family]
    config = getattr(transformers, f"{name}Config")(vocab_size=size, **shape)
    getattr(transformers, name + head)(config).save_pretrained(folder)


def trained(task: str, family: str, folder: Path, store: Path, **sections: Any) -> Run:
    """Train a few steps as a user does, and return the finished run."""
    make_source(family, folder / "source")
    shutil.copy(store, folder / "mlflow.db")
    content = {
        "name": "run",
        "task": task,
        "model": {"source": str(folder / "source"), "max_length": 128, "window": 16},
        "training": {"zero_stage": 1},
        "phases": [PHASE],
        "tracking": {"uri": f"sqlite:///{folder / 'mlflow.db'}"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content | sections))
    assert main(["train", str(folder / "run.yaml"), "--run-directory", str(folder / "run")]) == 0
    return Run.open(folder / "run")


def text(generator: random.Random) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(3, 12)))


def write_lines(folder: Path, lines: dict[str, list[dict[str, Any]]]) -> Path:
    folder.mkdir()
    for split, records in lines.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder


def table_of(run: Run, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.newest_result() / f"{name}-test.jsonl").read_text().splitlines()]


def predicted(run: Run, text: str, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert main(["predict", str(run.paths.export_directory), text, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["result"]


@pytest.mark.parametrize("family", [slow("bart"), slow("led"), "mbart", slow("mbart-50")])
def test_the_summaries_that_were_judged_are_written_again(
    family: str, tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = random.Random(0)
    counts = {"train": 12, "validation": 2, "test": 6}
    lines = {
        split: [{"document": text(generator), "summary": text(generator)} for _ in range(count)]
        for split, count in counts.items()
    }
    run = trained(
        "summarization",
        family,
        tmp_path,
        empty_store,
        data={
            "directory": str(tmp_path / "data"),
            "source": str(write_lines(tmp_path / "lines", lines)),
            "target_length": 32,
        },
        evaluation={"num_beams": 2, "max_length": 12, "batch_size": 3},
    )
    table = table_of(run, "summaries")
    assert len({row["prediction"] for row in table}) > 1
    for row in table:
        assert predicted(run, row["document"], capsys) == row["prediction"]
    shorter = task_of(load(tmp_path / "run.yaml", ["phases.0.sequence_length=64"]))
    assert any("reads 64 of the 128 tokens" in note for note in shorter.data.check())


@pytest.mark.parametrize("family", [slow("roberta"), "bert", slow("xlm-roberta")])
def test_the_classes_that_were_judged_are_told_again(
    family: str, tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = random.Random(0)
    counts = {"train": 12, "validation": 2, "test": 6}
    lines = {
        split: [{"text": text(generator), "label": generator.choice(["no", "yes"])} for _ in range(count)]
        for split, count in counts.items()
    }
    run = trained(
        "sequence_classification",
        family,
        tmp_path,
        empty_store,
        data={
            "directory": str(tmp_path / "data"),
            "source": str(write_lines(tmp_path / "lines", lines)),
            "classes": ["no", "yes"],
        },
        evaluation={"batch_size": 3},
    )
    table = table_of(run, "predictions")
    assert len({row["scores"]["yes"] for row in table}) == len(table)
    for row in table:
        first, *_ = found = predicted(run, row["text"], capsys)
        assert first["text"] == row["prediction"]
        assert {each["text"]: each["score"] for each in found} == pytest.approx(row["scores"], rel=1e-3)


@pytest.mark.parametrize(("family", "mask"), [("roberta", "<mask>"), slow("bert", "[MASK]")])
def test_the_guesses_at_hidden_letters_are_made_again(
    family: str, mask: str, tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = random.Random(0)
    between = " " if family == "bert" else ""
    # Each letter is a token, so that the first document is all that is judged.
    documents = [{"text": between.join(generator.choices("abcdefgijklmnopq", k=LETTERS))} for _ in range(60)]
    run = trained(
        "masked_lm",
        family,
        tmp_path,
        empty_store,
        data={
            "directory": str(tmp_path / "data"),
            "sources": [{"name": "letters", "path": str(write_lines(tmp_path / "lines", {"documents": documents}))}],
        },
        evaluation={"limit_tokens": LETTERS},
    )
    task = task_of_run(run)
    seen, hidden = map(torch.from_numpy, task.data.held_out("test"))
    tokenizer = task.data.tokenizer()
    is_mask = seen == tokenizer.special.mask
    assert len(seen) == LETTERS
    assert is_mask.sum() > 1
    assert torch.equal(seen[~is_mask & (hidden != -100)], hidden[~is_mask & (hidden != -100)])

    theirs = transformers.LongformerForMaskedLM.from_pretrained(run.paths.export_directory).eval()
    row = torch.tensor([[tokenizer.special.begin, *seen, tokenizer.special.end]])
    labels = torch.tensor([[-100, *hidden, -100]])
    bits = float(theirs(row, labels=labels).loss.detach()) / math.log(2)
    assert run.evaluations()[-1]["test"]["bits_per_masked_token"] == pytest.approx(bits, rel=1e-3)

    shown = between.join(mask if number == tokenizer.special.mask else tokenizer.decode([number]) for number in seen)
    hidden_tokens = next(each for each in task.report(run).sections if each.heading == "Hidden tokens")
    (table,) = (part.rows for part in hidden_tokens.parts if isinstance(part, Table))
    answers = predicted(run, shown, capsys)
    assert len(answers) == len(table) == int(is_mask.sum())
    for (_, _, best, probability), (first, *_) in zip(table, answers, strict=True):
        assert first["text"] == best.strip()
        assert first["score"] == pytest.approx(float(probability), abs=1e-3)
