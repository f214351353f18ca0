"""Claims about WikiHop: what a run learns, judges and exports is what `predict` and the server answer."""

import json
import random
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas
import pytest
import torch
from mlflow.exceptions import MlflowException
from torch.nn import functional
from transformers import RobertaTokenizer

from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.sampling.candidates import CandidateExample
from data_pipeline.shards.prepared import PreparedData
from launcher.cli import main
from launcher.config.load import load
from launcher.runs.run import Run
from launcher.tasks.data import BatchShare
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError
from longformer.inference.queries import CANDIDATE_TOKENS
from longformer.inference.selecting import Marks, candidate_inputs
from longformer.inference.serving import open_model
from longformer.interop.checkpoint_files import read_tensors
from tests.small_roberta import write_small_roberta

RUN_FILE = """
name: hops
task: wikihop
model: {source: roberta, max_length: 128, window: 16}
data: {directory: prepared, source: qangaroo}
training: {zero_stage: 1}
phases:
- {name: select, sequence_length: 64, learning_rate: 1.0e-2, steps: 8, batch_size: 8, micro_batch_size: 4}
tracking: {register_as: hops}
"""
RIGHT, WRONG = ("yes", "sure enough"), ("no", "never", "by no means at all")


def make_queries(folder: Path) -> None:
    """Writes queries with two to four candidates and documents of 5 to 120 words; the right one tells itself."""
    generator = random.Random(0)
    folder.mkdir()
    for split, count in (("train", 64), ("dev", 8), ("test", 12)):
        records: list[dict[str, Any]] = []
        for number in range(count):
            answer = generator.choice(RIGHT)
            candidates = [answer, *generator.sample(WRONG, 1 + number % 3)]
            generator.shuffle(candidates)
            words = ("the", "old", "court", "says", "price", ",", "never")
            supports = [" ".join(generator.choices(words, k=5 + 5 * (number % 6))) for _ in range(1 + number % 4)]
            query = f"{('country', 'spouse')[number % 2]} of {number}"
            record = {"id": f"{split}_{number}", "query": query, "answer": answer}
            records.append({**record, "candidates": candidates, "supports": supports})
        (folder / f"{split}.json").write_text(json.dumps(records))


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa of random weights, RoBERTa's tokenizer, queries, and a run file."""
    folder = tmp_path_factory.mktemp("queries")
    write_small_roberta(folder / "roberta", test_data)
    make_queries(folder / "qangaroo")
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


@pytest.mark.slow
def test_a_run_selects_and_what_it_reports_is_what_its_export_answers_everywhere(
    workplace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "mlflow.db").write_bytes(empty_store.read_bytes())
    assert main(["train", "run.yaml", f"tracking.uri=sqlite:///{workplace}/mlflow.db"]) == 0
    run = Run.open(Path("runs/hops"))
    test = run.evaluations()[-1]["test"]
    table = [json.loads(line) for line in (run.newest_result() / "predictions-test.jsonl").read_text().splitlines()]
    records = {record["id"]: record for record in json.loads(Path("qangaroo/test.json").read_text())}
    assert test["accuracy"] == sum(line["label"] == line["prediction"] for line in table) / len(records)
    assert 0 < test["longer_texts"] < test["texts"] == len(table) == len(records)
    assert {name: each["texts"] for name, each in test["by_relation"].items()} == {"country": 6, "spouse": 6}
    submission = json.loads((run.newest_result() / "submission-test.json").read_text())
    assert submission == {line["id"]: line["prediction"] for line in table}
    assert [line["label"] for line in table] == [records[line["id"]]["answer"] for line in table]

    # The baselines, counted from the files.
    learned = json.loads(Path("qangaroo/train.json").read_text())
    relation = {record["id"]: record["query"].split()[0] for record in (*learned, *records.values())}

    def frequency(name: str, asked: dict[str, Any]) -> int:
        return sum(each["answer"] == name and relation[each["id"]] == relation[asked["id"]] for each in learned)

    def mentions(name: str, asked: dict[str, Any]) -> int:
        return " ".join(asked["supports"]).split().count(name)

    def accuracy(worth: Any) -> float:
        return float(
            np.mean([max(r["candidates"], key=lambda name: worth(name, r)) == r["answer"] for r in records.values()])
        )

    assert test["baselines"] == {
        "random": pytest.approx(np.mean([1 / len(record["candidates"]) for record in records.values()])),
        "most_frequent_candidate": pytest.approx(accuracy(frequency)),
        "most_mentioned_candidate": pytest.approx(accuracy(mentions)),
    }
    page = Path("runs/hops/report/report.html").read_text()
    assert all(told in page for told in ("most mentioned candidate", "Relations", "Does reading more help?"))

    Path("asked.json").write_text(json.dumps([records[line["id"]] for line in table]))
    assert main(["predict", "runs/hops", "asked.json", "--output", "answers.jsonl"]) == 0
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    for answer, line in zip(answers, table, strict=True):
        assert answer["candidate"] == line["prediction"]
        assert answer["scores"] == pytest.approx(line["probabilities"], abs=1e-5)
        assert answer["record"]["id"] == line["id"]
    first = next(record for record in records.values() if len(record["supports"]) == 1)
    asked = [part for name in first["candidates"] for part in ("--choice", name)]
    capsys.readouterr()
    assert main(["predict", "runs/hops", first["supports"][0], "--question", first["query"], *asked, "--json"]) == 0
    best, *_ = json.loads(capsys.readouterr().out)["result"]
    assert best["text"] == submission[first["id"]]

    mlflow.set_tracking_uri(f"sqlite:///{workplace}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/hops/1")
    fields = ("query", "candidates", "supports")
    found = served.predict(pandas.DataFrame([{name: records[line["id"]][name] for name in fields} for line in table]))
    assert found["candidate"].tolist() == [line["prediction"] for line in table]
    with pytest.raises(MlflowException, match="row 1 of 1: one candidate is given: give two or more"):
        served.predict(pandas.DataFrame([{"query": "a b", "candidates": ["c"], "supports": ["d"]}]))

    # Transformers gives the added tokens the same ids.
    theirs = RobertaTokenizer.from_pretrained(run.paths.export_directory)
    assert theirs.convert_tokens_to_ids(list(CANDIDATE_TOKENS)) == list(range(50_265, 50_269))


@pytest.mark.parametrize("window_scores", ["mean", "sum"])
def test_scores_are_those_of_the_windows_read_one_by_one_and_a_batch_is_divided(
    window_scores: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml", [f"data.directory={tmp_path / 'data'}", f"data.window_scores={window_scores}"]))
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
        return torch.stack(losses).sum().item(), model.candidate_score.weight.grad.clone()

    (batch,) = islice(task.data.batches(0, BatchShare(0, 1, 8), ()), 1)
    windows = (batch["attention_mask"].sum(-1) > 0).sum(-1)
    assert len(set(windows.tolist())) > 1
    # Each window by itself, without any padding.
    alone = []
    for row, label in enumerate(batch["labels"]):
        places = batch["candidate_positions"][row]
        places = places[places >= 0]
        scores = []
        for window in range(windows[row]):
            is_token = batch["attention_mask"][row, window] == 1
            names = ("input_ids", "global_attention_mask")
            read = {name: batch[name][row, window][is_token][None] for name in names}
            hidden = model.longformer(**read).last_hidden_state[0]
            scores.append(model.candidate_score(hidden[places]).squeeze(-1))
        total = torch.stack(scores).sum(0)
        alone.append(functional.cross_entropy(total / (1 if window_scores == "sum" else windows[row]), label))
    expected = torch.stack(alone).mean().item()
    # And they are those of evaluation and use.
    sequences, marks = task.data.sequences(0), Marks(*astuple(task.data.marks()))
    split = PreparedData.open(tmp_path / "data").split("train")
    for position in range(8):
        piece, found = sequences._piece(position), sequences.sequence(position)
        read = split.read(piece.shard, piece.example)
        assert read is not None
        example = CandidateExample.of(read).shuffled((task.data.seed(0), piece.shard, piece.example, 0))
        assert found.pop("labels") == example.label
        parts = example.query, example.candidates, example.supports
        inputs = candidate_inputs(task.reading(0), *parts, marks=marks, padding=1)
        assert found.keys() == inputs.keys()
        assert all((found[name] == inputs[name]).all() for name in found)

    loss, gradient = mean_loss(8)
    assert loss == pytest.approx(expected, rel=1e-5)
    for size in (1, 4):
        again, same = mean_loss(size)
        assert again == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(same, gradient, rtol=1e-4, atol=1e-6)


def test_added_tokens_are_drawn_as_the_table_is_spread_and_all_else_stays(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml"))
    for name in ("start", "again"):
        task.write_start(tmp_path / name)
    first, again = (
        read_tensors(tmp_path / name)["longformer.embeddings.word_embeddings.weight"] for name in ("start", "again")
    )
    assert torch.equal(first, again)
    old, new = first[:50_265], first[50_265:]
    assert torch.equal(old, read_tensors(workplace / "roberta")["roberta.embeddings.word_embeddings.weight"])
    assert len(new) == len(CANDIDATE_TOKENS)
    assert new.std().item() == pytest.approx(old.std().item(), rel=0.5)
    assert not torch.equal(new[0], new[1])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "the query is missing"),
    ({"query": "a b", "candidates": ["c", "d"]}, "the supports are missing"),
    ({"query": "a b", "candidates": ["c", "d"], "supports": []}, "no supports are given: give one or more"),
    ({"query": "a b", "candidates": ["c", "d"], "supports": ["e", " "]}, "the support 2 is empty"),
    ({"query": "a b", "candidates": "c", "supports": ["e"]}, "the candidates are not a list but of the type str"),
    ({"query": "a " * 200, "candidates": ["c", "d"], "supports": ["e"]}, "leave no room for the documents"),
]


def test_what_cannot_be_selected_is_one_sentence(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml"))
    task.write_start(tmp_path / "start")
    task.build_model(0, tmp_path / "start").save_pretrained(tmp_path / "model")
    task.copy_companions(tmp_path / "start", tmp_path / "model")
    answer = open_model(tmp_path / "model", "select")
    for record, sentence in REFUSED:
        with pytest.raises(LongformerError, match=sentence):
            answer(record, {})
    odd = answer({"query": "a", "candidates": ["\u200b", "d"], "supports": ["e"]}, {})
    assert sum(odd["scores"]) == pytest.approx(1)


def test_queries_without_room_for_documents_are_refused_before_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    main(["train", "run.yaml", "name=short", "data.directory=short", "phases.0.sequence_length=16"])
    said = " ".join(capsys.readouterr().err.split())
    assert "which leaves no room for a text in sequences of 16: use longer ones" in said
