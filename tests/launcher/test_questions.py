"""Claims about questions beside texts: what is reported is what the export answers, here and in transformers."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    LongformerForSequenceClassification,
    RobertaConfig,
    RobertaModel,
)

from launcher.cli import main
from launcher.config.load import load
from launcher.tasks.base import EvaluationRequest
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError
from longformer.inference.predictor import Predictor
from longformer.inference.serving import example_of, open_model
from tests.interop.tokenizer_folders import byte_level, word_pieces
from tests.launcher.test_token_classification import trained

LENGTH = 40
RUN_FILE = """
name: asked
task: sequence_classification
model: {{source: {family}, max_length: 64, window: 8}}
data: {{directory: {name}, source: records.jsonl, text: body, question: asked, label: answer, {reading}}}
training: {{zero_stage: 1}}
phases:
- {{name: only, sequence_length: 40, learning_rate: 1.0e-2, epochs: 1, batch_size: 8}}
"""
SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "vocab_size": 400,
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa and a small BERT of random weights, and questions about texts of many lengths."""
    folder, generator = tmp_path_factory.mktemp("questions"), random.Random(0)
    for name in ("roberta", "bert"):
        (folder / name).mkdir()
    torch.manual_seed(0)
    byte_level(folder / "roberta")
    RobertaModel(RobertaConfig(**SHAPE, max_position_embeddings=34, pad_token_id=1, type_vocab_size=1)).save_pretrained(
        folder / "roberta"
    )
    word_pieces(folder / "bert")
    BertModel(BertConfig(**SHAPE, max_position_embeddings=32)).save_pretrained(folder / "bert")
    with (folder / "records.jsonl").open("w") as file:
        for number in range(120):
            words = [generator.choice(["the", "cat", "sat"]) for _ in range(generator.randrange(1, 30))]
            question = "is it even" if number % 40 else "is it even, or is it not, or what else may it be"
            record = {"body": " ".join(words), "asked": question, "answer": ["no", "yes"][len(words) % 2]}
            file.write(json.dumps(record) + "\n")
        file.write(json.dumps({"body": " ", "asked": "is it even", "answer": "no"}) + "\n")
    return folder


@pytest.mark.parametrize(
    ("family", "global_tokens", "long_documents"),
    [("roberta", "question", "truncate_end"), ("bert", "question", "windows"), ("bert", "none", "truncate_begin")],
)
def test_what_is_reported_is_what_the_exported_model_answers_here_and_in_transformers(
    family: str,
    global_tokens: str,
    long_documents: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workplace)
    reading, name = f"global_tokens: {global_tokens}, long_documents: {long_documents}", f"{family}-{global_tokens}"
    Path("run.yaml").write_text(RUN_FILE.format(family=family, name=name, reading=reading))
    Path(f"{name}-run").mkdir()
    task = task_of(load("run.yaml"))
    model, folder = trained(task, Path(f"{name}-run").absolute(), steps=2), Path(f"{name}-run", "model")
    found = task.evaluate(model, 0, EvaluationRequest(split="train"))
    assert found.scores["longer_texts"] > 20
    assert found.scores["longer_questions"] == sum(len(line["question"]) > 20 for line in found.table) > 0
    assert json.loads((folder / "config.json").read_text())["reading"] == {
        "length": LENGTH, "long_documents": long_documents, "global_tokens": global_tokens, "question": True
    }  # fmt: skip

    # Training shows what evaluation reads, of each text one part.
    parts, inputs, task_reading = set(), task.data.inputs(LENGTH), task.reading(0)
    for text in task.data.held_out("train"):
        for span in task_reading.spans(len(text.text), inputs.beside(len(text.question))):
            parts.add(inputs.of(text.text[span], text.question)["input_ids"].tobytes())
    sequences = task.data.sequences(0)
    shown = [sequences.sequence(position) for position in range(2 * sequences.per_epoch)]
    assert {each["input_ids"].tobytes() for each in shown} <= parts
    assert max(len(each["input_ids"]) for each in shown) == LENGTH

    predictor = Predictor.load(folder, "classify")
    theirs = LongformerForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    compared = 0
    for line in found.table[:40]:
        answer = {each.text: each.score for each in predictor.classify(line["text"], line["question"])}
        assert answer == pytest.approx(line["scores"], abs=1e-5)
        if len(line["question"]) > 20 or (line["tokens"] > LENGTH and long_documents != "truncate_end"):
            continue
        batch = tokenizer(
            line["question"], line["text"], truncation="only_second", max_length=LENGTH, return_tensors="pt"
        )
        is_global = torch.tensor([[part == 0 for part in batch.sequence_ids(0)]]).long()
        is_global[0, 0] = 1
        if global_tokens == "none":
            is_global.zero_()
        with torch.no_grad():
            scores = theirs(**batch, global_attention_mask=is_global).logits[0].softmax(-1)
        assert scores.tolist() == pytest.approx([line["scores"]["no"], line["scores"]["yes"]], abs=1e-5)
        compared += 1
    assert compared > 5

    assert open_model(folder, "classify")(example_of(folder, "classify"), {})["classes"]
    with pytest.raises(LongformerError, match="the question is missing"):
        predictor.classify("the cat")
    options = ["--output", f"{name}.jsonl", "--field", "text=body", "--field", "question=asked"]
    assert main(["predict", str(folder), "records.jsonl", *options]) == 1  # the record without a text
    lines = [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()]
    assert [("error" in line) for line in lines] == [False] * 120 + [True]
    capsys.readouterr()
    assert main(["predict", str(folder), "the cat", "--question", "is it even", "--json"]) == 0
    assert {each["text"] for each in json.loads(capsys.readouterr().out)["result"]} == {"no", "yes"}


def test_global_questions_need_a_question(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    Path("run.yaml").write_text(RUN_FILE.format(family="bert", name="none", reading="global_tokens: question"))
    with pytest.raises(LongformerError, match=r"data\.global_tokens is question, but there is none: name its field"):
        load("run.yaml", ["data.question=null"])
