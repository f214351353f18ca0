"""Claims about choosing: what a run learns, judges and exports is what `predict` and the server answer."""

import csv
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
import pytest
import torch
from torch.nn import functional
from transformers import LongformerForMultipleChoice, RobertaTokenizer

from data_pipeline.prepare.parallel import in_this_process
from launcher.cli import main
from launcher.config.load import load
from launcher.runs.run import Run
from launcher.tasks.data import BatchShare
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError
from longformer.inference.serving import open_model
from tests.small_roberta import write_small_roberta

RUN_FILE = """
name: answers
task: multiple_choice
model: {source: roberta, max_length: 128, window: 16}
data: {directory: prepared, source: questions, label_as: number_from_1, long_documents: windows}
training: {zero_stage: 1}
phases:
- {name: choose, sequence_length: 32, learning_rate: 1.0e-2, steps: 30, batch_size: 8, micro_batch_size: 4}
tracking: {register_as: answers}
"""
RIGHT, WRONG = ("yes", "sure enough"), ("no", "never", "by no means at all")


def make_questions(folder: Path) -> None:
    """Writes questions with two to four choices about texts of 5 to 54 words; the right one tells itself."""
    generator = random.Random(0)
    folder.mkdir()
    for split, count in (("train", 64), ("validation", 8), ("test", 12)):
        lines = []
        for number in range(count):
            choices = [generator.choice(RIGHT), *generator.sample(WRONG, 1 + number % 3)]
            generator.shuffle(choices)
            right = next(place for place, choice in enumerate(choices, start=1) if choice in RIGHT)
            text = " ".join(generator.choices(("the", "old", "court", "says", "price"), k=5 + 7 * (number % 8)))
            record = {"context": text, "question": f"Is it {number}?", "choices": choices, "label": right}
            lines.append(json.dumps(record))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa of random weights, RoBERTa's tokenizer, questions with choices, and a run file."""
    folder = tmp_path_factory.mktemp("choices")
    write_small_roberta(folder / "roberta", test_data)
    make_questions(folder / "questions")
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


def of_transformers(model: Any, tokenizer: Any, record: dict[str, Any], *, length: int) -> list[float]:
    """Returns the mean of the probabilities that transformers gives the choices beside each window of the context."""
    beside = [f"{record['question']} {choice}" for choice in record["choices"]]
    room = length - max(len(tokenizer("", each)["input_ids"]) for each in beside)
    ids = tokenizer(record["context"], add_special_tokens=False)["input_ids"]
    starts = [min(start, max(0, len(ids) - room)) for start in range(0, len(ids), room)]
    values = []
    for start in starts:
        window = tokenizer.decode(ids[start : start + room])
        batch = tokenizer([window] * len(beside), beside, padding=True, return_tensors="pt")
        with torch.no_grad():
            values.append(model(**{name: each[None] for name, each in batch.items()}).logits[0].softmax(-1))
    return torch.stack(values).mean(0).tolist()


def test_a_run_chooses_and_what_it_reports_is_what_its_export_answers_everywhere(
    workplace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "mlflow.db").write_bytes(empty_store.read_bytes())
    assert main(["train", "run.yaml", f"tracking.uri=sqlite:///{workplace}/mlflow.db"]) == 0
    run = Run.open(Path("runs/answers"))
    test = run.evaluations()[-1]["test"]
    table = [json.loads(line) for line in (run.newest_result() / "predictions-test.jsonl").read_text().splitlines()]
    records = [json.loads(line) for line in Path("questions/test.jsonl").read_text().splitlines()]
    assert test["accuracy"] == sum(line["label"] == line["prediction"] for line in table) / len(records) == 1.0
    assert test["baselines"]["random"] == pytest.approx(sum(1 / len(each["choices"]) for each in records) / 12)
    assert 0 < test["longer_texts"] < test["texts"] == len(table) == len(records)
    page = Path("runs/answers/report/report.html").read_text()
    assert all(told in page for told in ("Beside baselines", "longest choice", "Does reading more help?"))

    export = run.paths.export_directory
    theirs = LongformerForMultipleChoice.from_pretrained(export).eval(), RobertaTokenizer.from_pretrained(export)
    for record, line in zip(records, table, strict=True):
        assert line["label"] == record["choices"][record["label"] - 1]
        assert line["probabilities"] == pytest.approx(of_transformers(*theirs, record, length=32), abs=1e-4)

    # The same from a table, in which the choices are a list or columns of their own; the label is not looked at.
    with Path("asked.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["context", "question", "choices", "label"])
        rows.writerows([each["context"], each["question"], json.dumps(each["choices"]), "?"] for each in records)
    assert main(["predict", "runs/answers", "asked.csv", "--output", "answers.jsonl"]) == 0
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    for answer, line in zip(answers, table, strict=True):
        assert answer["choice"] == line["prediction"]
        assert answer["scores"] == pytest.approx(line["probabilities"], abs=1e-5)
        assert answer["record"] == {"label": "?"}
    first = records[-1]
    asked = [part for choice in first["choices"] for part in ("--choice", choice)]
    capsys.readouterr()
    assert main(["predict", "runs/answers", first["context"], "--question", first["question"], *asked, "--json"]) == 0
    best, *_ = json.loads(capsys.readouterr().out)["result"]
    assert (best["text"], best["score"]) == (answers[-1]["choice"], pytest.approx(max(answers[-1]["scores"]), abs=1e-5))

    mlflow.set_tracking_uri(f"sqlite:///{workplace}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/answers/1")
    fields = ("context", "question", "choices")
    found = served.predict(pandas.DataFrame([{name: each[name] for name in fields} for each in records]))
    assert found["choice"].tolist() == [answer["choice"] for answer in answers]
    without_context = {"question": "Is it?", "choices": ["yes", "no"]}
    (answer,) = served.predict(pandas.DataFrame([without_context])).to_dict("records")
    assert answer == open_model(export, "choose")(without_context, {})


def test_every_example_counts_alike_however_many_choices_it_has_and_a_batch_is_divided(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml", [f"data.directory={tmp_path / 'data'}"]))
    task.data.prepare(in_this_process)
    task.write_start(tmp_path / "start")
    model = task.build_model(0, tmp_path / "start").eval()

    def mean_loss(micro_batch_size: int) -> tuple[float, torch.Tensor]:
        batches = list(islice(task.data.batches(0, BatchShare(0, 1, micro_batch_size), ()), 8 // micro_batch_size))
        count = task.objective.predictions
        assert count is not None
        losses = [task.objective.loss(model, batch) * count(batch) / 8 for batch in batches]
        model.zero_grad()
        torch.stack(losses).sum().backward()
        return float(torch.stack(losses).sum()), model.classifier.weight.grad.clone()

    (batch,) = islice(task.data.batches(0, BatchShare(0, 1, 8), ()), 1)
    counts = (batch["attention_mask"].sum(-1) > 0).sum(-1)
    assert len(set(counts.tolist())) > 1
    # Each by itself, without any padding.
    alone = []
    for row, label in enumerate(batch["labels"]):
        logits = []
        for choice in range(counts[row]):
            is_token = batch["attention_mask"][row, choice] == 1
            names = ("input_ids", "token_type_ids", "global_attention_mask")
            logits.append(model(**{name: batch[name][row, choice][is_token][None, None] for name in names}).logits)
        alone.append(functional.cross_entropy(torch.cat(logits, 1), label[None]))
    expected = float(torch.stack(alone).mean())
    loss, gradient = mean_loss(8)
    assert loss == pytest.approx(expected, rel=1e-5)
    for size in (1, 2, 4):
        again, same = mean_loss(size)
        assert again == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(same, gradient, rtol=1e-4, atol=1e-6)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"question": "Is it?"}, "the choices are missing"),
    ({"question": "Is it?", "choices": "yes"}, "the choices are not a list but of the type str"),
    ({"question": "Is it?", "choices": ["yes"]}, "one choice is given: give two or more"),
    ({"question": "Is it?", "choices": ["yes", None]}, "the choice 2 is missing"),
    ({"context": 7, "choices": ["yes", "no"]}, "the context is not a text but of the type int"),
    ({"context": None, "choices": ["yes", "no"]}, "the context and the question are missing"),
    ({"context": "It is.", "question": "Is it? " * 600, "choices": ["yes", "no"]}, "leaves no room for the text"),
]


def test_what_cannot_be_chosen_is_one_sentence(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml"))
    task.write_start(tmp_path / "start")
    task.build_model(0, tmp_path / "start").save_pretrained(tmp_path / "model")
    task.copy_companions(tmp_path / "start", tmp_path / "model")
    answer = open_model(tmp_path / "model", "choose")
    for record, sentence in REFUSED:
        with pytest.raises(LongformerError, match=sentence):
            answer(record, {})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["data.context=null", "data.question=null"], "name the field of one at least"),
        (["data.choices=[one]"], "it should be one field or several different ones"),
        (["data.label_as=null", "data.directory=other"], "say with data.label_as what it is"),
        (["data.label=right", "data.directory=other"], "it has no field right"),
    ],
)
def test_impossible_data_is_refused(
    changes: list[str],
    sentence: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workplace)
    assert main(["check", "run.yaml", *changes]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
