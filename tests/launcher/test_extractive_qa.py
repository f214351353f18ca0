"""Claims about answering: what a run learns, judges and exports is what `predict` and the server answer."""

import json
import math
import random
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
import pytest
import torch
from transformers import LongformerForQuestionAnswering, RobertaTokenizerFast

from data_pipeline.prepare.parallel import in_this_process
from launcher.cli import main
from launcher.config.load import load
from launcher.runs.run import Run
from launcher.tasks.data import BatchShare
from launcher.tasks.registry import task_of
from longformer.inference.serving import open_model
from tests.small_roberta import write_small_roberta

RUN_FILE = """
name: answers
task: extractive_qa
model: {source: roberta, max_length: 128, window: 16}
data: {directory: prepared, source: questions, overlap: 8, longest_answer: 8}
training: {zero_stage: 1}
phases:
- {name: answer, sequence_length: 32, learning_rate: 1.0e-2, steps: 60, batch_size: 16, micro_batch_size: 4}
tracking: {register_as: answers}
"""
NAMES, WORDS = ("Ada Byron", "Zoë Çelik", "Bob"), ("the", "old", "court", "says", "price", " ", "\t")


def make_questions(folder: Path) -> None:
    """Writes questions about texts of 5 to 54 words; the name in a text is the answer, and every fourth has none."""
    generator = random.Random(0)
    folder.mkdir()
    for split, count in (("train", 96), ("validation", 16), ("test", 16)):
        articles = []
        for number in range(count):
            words = generator.choices(WORDS, k=5 + 7 * (number % 8))
            answers = []
            if number % 4:
                place, name = generator.randrange(len(words)), generator.choice(NAMES)
                words.insert(place, name)
                answers = [{"text": name, "answer_start": len(" ".join([*words[:place], ""]))}]
            asked = {"id": f"{split}-{number}", "question": "Who is it?", "answers": answers}
            asked["is_impossible"] = not answers
            articles.append({"title": "A", "paragraphs": [{"context": " ".join(words), "qas": [asked]}]})
        (folder / f"{split}.json").write_text(json.dumps({"version": "v2.0", "data": articles}))


def asked_in(file: Path) -> list[dict[str, Any]]:
    """Returns the questions of a file with their contexts."""
    paragraphs = [each for article in json.loads(file.read_text())["data"] for each in article["paragraphs"]]
    return [{**asked, "context": each["context"]} for each in paragraphs for asked in each["qas"]]


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa of random weights, RoBERTa's tokenizer, questions, and a run file."""
    folder = tmp_path_factory.mktemp("answers")
    write_small_roberta(folder / "roberta", test_data)
    make_questions(folder / "questions")
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


def of_transformers(model: Any, tokenizer: Any, record: dict[str, Any]) -> tuple[str, float]:
    """Returns the best answer in the windows that transformers' tokenizer makes, and how much better than none."""
    batch = tokenizer(
        record["question"], record["context"], max_length=32, stride=8, truncation="only_second",
        return_overflowing_tokens=True, return_offsets_mapping=True, padding=True, return_tensors="pt",
    )  # fmt: skip
    found = []
    with torch.no_grad():
        for window, offsets in enumerate(batch["offset_mapping"].tolist()):
            ids, mask = (batch[name][window : window + 1] for name in ("input_ids", "attention_mask"))
            output = model(ids, attention_mask=mask)
            starts, ends = output.start_logits[0].tolist(), output.end_logits[0].tolist()
            context = [place for place, part in enumerate(batch.sequence_ids(window)) if part == 1]
            for first in context:
                for last in range(first, min(first + 8, context[-1] + 1)):
                    text = record["context"][offsets[first][0] : offsets[last][1]].strip()
                    found.append((starts[first] + ends[last] - starts[0] - ends[0], text))
    score, text = max(found)
    return text, score


def test_a_run_answers_and_what_it_reports_is_what_its_export_answers_everywhere(
    workplace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "mlflow.db").write_bytes(empty_store.read_bytes())
    assert main(["train", "run.yaml", f"tracking.uri=sqlite:///{workplace}/mlflow.db"]) == 0
    run = Run.open(Path("runs/answers"))
    test = run.evaluations()[-1]["test"]
    table = [json.loads(line) for line in (run.newest_result() / "predictions-test.jsonl").read_text().splitlines()]
    records = asked_in(Path("questions/test.json"))
    assert test["reachable"]["exact"] == 1.0
    assert sum(line["f1"] for line in table) / len(records) == pytest.approx(test["f1"])
    assert test["f1"] > 0.9
    assert 0 < test["longer_contexts"] < test["questions"] == len(table) == len(records)
    assert json.loads((run.newest_result() / "answers-test.json").read_text()) == {
        line["id"]: line["prediction"] for line in table
    }
    page = Path("runs/answers/report/report.html").read_text()
    assert all(told in page for told in ("Beside baselines", "reachable", "Kinds of questions"))

    export = run.paths.export_directory
    theirs = LongformerForQuestionAnswering.from_pretrained(export).eval()
    tokenizer = RobertaTokenizerFast.from_pretrained(export)
    for record, line in zip(records, table, strict=True):
        text, score = of_transformers(theirs, tokenizer, record)
        odds = math.log(line["score"] / line["no_answer"])
        # The last window of transformers is shorter, ours as long as the others.
        near = pytest.approx(score, abs=1e-3 if line["tokens"] <= 32 else 0.5)
        assert (line["best"], odds) == (text, near)

    Path("asked.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    assert main(["predict", "runs/answers", "asked.jsonl", "--output", "answers.jsonl"]) == 0
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    for answer, line, record in zip(answers, table, records, strict=True):
        assert (answer["answer"], answer["no_answer"]) == (
            line["prediction"],
            pytest.approx(line["no_answer"], abs=1e-4),
        )
        assert all(record["context"][each["start"] : each["end"]] == each["text"] for each in answer["answers"])

    mlflow.set_tracking_uri(f"sqlite:///{workplace}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/answers/1")
    found = served.predict(
        pandas.DataFrame([{name: each[name] for name in ("question", "context")} for each in records])
    )
    assert found["answer"].tolist() == [answer["answer"] for answer in answers]
    long = {"question": "Who is it? " * 20, "context": "Bob"}
    with pytest.raises(Exception, match=r"the question has .* tokens, but 13 are read beside a context"):
        open_model(export, "answer")(long, {})


def test_the_loss_does_not_depend_on_how_a_batch_is_divided(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml", [f"data.directory={tmp_path / 'data'}"]))
    task.data.prepare(in_this_process)
    task.write_start(tmp_path / "start")
    model = task.build_model(0, tmp_path / "start").eval()

    def mean_loss(micro_batch_size: int) -> float:
        batches = islice(task.data.batches(0, BatchShare(0, 1, micro_batch_size), ()), 16 // micro_batch_size)
        losses = [task.objective.loss(model, batch) * task.objective.predictions(batch) / 16 for batch in batches]
        return float(torch.stack(losses).sum())

    whole = mean_loss(16)
    assert [mean_loss(1), mean_loss(4)] == pytest.approx([whole, whole], rel=1e-6)
