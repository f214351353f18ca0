"""Claim: what a run judges is what its model writes in use, from text and query alone, in each family's own format."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from data_pipeline.prepare.parallel import in_this_process
from launcher.runs.paths import RunPaths
from launcher.runs.run import Run
from launcher.tasks.base import EvaluationRequest
from launcher.tasks.data import InputData
from launcher.tasks.registry import task_of
from launcher.tasks.summarization.config import SummarizationRun
from launcher.training.start_model import bring_start_model
from longformer.errors import LongformerError
from longformer.inference.predictor import Predictor
from longformer.interop.tokenizer import read_tokenizer
from longformer.models import LEDForConditionalGeneration
from tests.interop.tokenizer_folders import byte_level, unigram

TEXT = "the old price was <s>100</s> now 80, the court says "
LAYOUT = "document=document,summary=summary,query=query"
SHAPE = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64, "init_std": 0.5,
}  # fmt: skip


def make_source(folder: Path, family: str) -> None:
    """Writes a small source with its tokenizer."""
    folder.mkdir()
    torch.manual_seed(0)
    if family == "mbart":
        size = len(unigram(transformers.MBartTokenizer, folder, src_lang="de_DE"))
        config = transformers.MBartConfig(vocab_size=size, **SHAPE)
        transformers.MBartForConditionalGeneration(config).save_pretrained(folder)
    else:
        byte_level(folder, additional_special_tokens=["<doc-sep>"])
        config = transformers.BartConfig(vocab_size=265, **SHAPE)
        transformers.BartForConditionalGeneration(config).save_pretrained(folder)


def run_of(folder: Path, *, evaluation: dict[str, int] | None = None, **changes: object) -> SummarizationRun:
    """Returns a run on the source and the lines of a folder."""
    data = {"directory": folder / "data", "source": folder / "lines.jsonl", "layout": LAYOUT, "target_length": 32}
    return SummarizationRun.model_validate(
        {
            "name": "one-format",
            "task": "summarization",
            "model": {"source": folder / "source", "max_length": 128, "window": 16},
            "phases": [{"name": "only", "sequence_length": 128, "learning_rate": 1e-3, "steps": 1, "batch_size": 1}],
            "evaluation": evaluation or {"num_beams": 2, "max_length": 12},
            **changes,
            "data": {**data, **changes.get("data", {})},
        }
    )


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_what_was_judged_is_written_again_from_the_text(family: str, tmp_path: Path) -> None:
    make_source(tmp_path / "source", family)
    # Longer than half of what the model reads is the last of them.
    queries = ["", "what does the court say", "what </s> of the price " * 20]
    lines = [
        json.dumps({"document": f"{number} {TEXT * 3}", "summary": f"the {number}", "query": queries[number // 3 % 3]})
        + "\n"
        for number in range(60)
    ]
    (tmp_path / "lines.jsonl").write_text("".join(lines))
    task = task_of(run_of(tmp_path))
    task.data.prepare(in_this_process)
    task.write_start(tmp_path / "model")
    model = LEDForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    predictor = Predictor.load(tmp_path / "model", "summarize")
    table = task.evaluate(model, 0, EvaluationRequest(split="test")).table
    assert len({row["prediction"] for row in table}) > 1
    assert {len(row["query"]) > 128 for row in table} == {True, False}
    for row in table:
        assert predictor.summarize(row["document"], query=row["query"]) == row["prediction"]


def test_a_model_that_a_run_starts_from_reads_and_writes_as_the_run_says(tmp_path: Path) -> None:
    make_source(tmp_path / "source", "bart")
    task_of(run_of(tmp_path)).write_start(tmp_path / "model")
    config = run_of(
        tmp_path,
        init=str(tmp_path / "model"),
        data={"special_tokens": ["<doc-sep>"]},
        evaluation={"num_beams": 3, "max_length": 9},
    )
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    assert bring_start_model(Run(paths, config), InputData(tmp_path / "data", "")) == str(tmp_path / "model")
    read = read_tokenizer(paths.start_directory).encode("a<doc-sep>b")
    assert read.tokens == ["<s>", "a", "<doc-sep>", "b", "</s>"]
    generation = json.loads((paths.start_directory / "generation_config.json").read_bytes())
    assert (generation["num_beams"], generation["max_length"]) == (3, 9)
    theirs = transformers.AutoTokenizer.from_pretrained(paths.start_directory)
    assert theirs("a<doc-sep>b")["input_ids"] == read.ids

    make_source(tmp_path / "other", "mbart")
    other = run_of(tmp_path, model={"source": tmp_path / "other", "max_length": 128, "window": 16})
    task_of(other).write_start(tmp_path / "other-model")
    led = json.loads((tmp_path / "model" / "config.json").read_bytes())
    other_led = tmp_path / "other-model" / "config.json"
    other_led.write_text(json.dumps({**json.loads(other_led.read_bytes()), "model_type": led["model_type"]}))
    with pytest.raises(LongformerError, match=r"init: .* has another vocabulary than .*source, whose tokens the data"):
        task_of(config).check_start(tmp_path / "other-model")
