"""Claim: what a run judges is what its model writes in use, from text and query alone, in each family's own format."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from data_pipeline.prepare.parallel import in_this_process
from launcher.tasks.base import EvaluationRequest
from launcher.tasks.registry import task_of
from launcher.tasks.summarization.config import SummarizationRun
from longformer.inference.predictor import Predictor
from longformer.models import LEDForConditionalGeneration
from tests.interop.tokenizer_folders import byte_level, unigram

TEXT = "the old price was <s>100</s> now 80, the court says "
LAYOUT = "document=document,summary=summary,query=query"
SHAPE = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64, "init_std": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_what_was_judged_is_written_again_from_the_text(family: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    torch.manual_seed(0)
    if family == "mbart":
        size = len(unigram(transformers.MBartTokenizer, source, src_lang="de_DE"))
        config = transformers.MBartConfig(vocab_size=size, **SHAPE)
        transformers.MBartForConditionalGeneration(config).save_pretrained(source)
    else:
        byte_level(source)
        config = transformers.BartConfig(vocab_size=264, **SHAPE)
        transformers.BartForConditionalGeneration(config).save_pretrained(source)
    # Longer than half of what the model reads is the last of them.
    queries = ["", "what does the court say", "what </s> of the price " * 20]
    lines = [
        json.dumps({"document": f"{number} {TEXT * 3}", "summary": f"the {number}", "query": queries[number // 3 % 3]})
        + "\n"
        for number in range(60)
    ]
    (tmp_path / "lines.jsonl").write_text("".join(lines))
    run = SummarizationRun.model_validate(
        {
            "name": "one-format",
            "task": "summarization",
            "model": {"source": source, "max_length": 128, "window": 16},
            "data": {"directory": tmp_path / "data", "source": tmp_path / "lines.jsonl", "layout": LAYOUT},
            "phases": [{"name": "only", "sequence_length": 128, "learning_rate": 1e-3, "steps": 1, "batch_size": 1}],
            "evaluation": {"num_beams": 2, "max_length": 12},
        }
    )
    task = task_of(run)
    task.data.prepare(in_this_process)
    task.write_start(tmp_path / "model")
    model = LEDForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    predictor = Predictor.load(tmp_path / "model", "summarize")
    table = task.evaluate(model, 0, EvaluationRequest(split="test")).table
    assert len({row["prediction"] for row in table}) > 1
    assert {len(row["query"]) > 128 for row in table} == {True, False}
    for row in table:
        assert predictor.summarize(row["document"], query=row["query"]) == row["prediction"]
