"""Coreference: a run learns, its scores are the official ones, and what it reports is what its export finds."""

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
import pytest
import torch

from data_pipeline.prepare.parallel import in_this_process
from launcher.cli import main
from launcher.config.load import load
from launcher.runs.run import Run
from launcher.tasks.coreference.report import mention_pieces
from launcher.tasks.data import BatchShare
from launcher.tasks.registry import task_of
from longformer.evaluation.coreference import coreference_scores
from longformer.inference.serving import open_model
from tests.small_roberta import write_small_roberta

RUN_FILE = """
name: clusters
task: coreference
model: {source: roberta, max_length: 256, window: 32}
data: {directory: prepared, source: documents, overlap: 8}
head: {kind: start_to_end, head_size: 32, max_span_tokens: 4, dropout: 0.0}
training: {zero_stage: 1, gradient_clipping: 1.0}
phases:
- {name: cluster, sequence_length: 64, learning_rate: 4.0e-3, steps: 120, batch_size: 8, micro_batch_size: 4}
tracking: {register_as: clusters}
"""
NAMES = ("Ada", "Bob", "Zoë", "Carl")


def document_of(number: int, generator: random.Random) -> dict[str, Any]:
    """Sentences about two people, who are named again and again; each name is a cluster."""
    people = generator.sample(NAMES, 2)
    sentences = [
        [
            generator.choice(people),
            generator.choice(("saw", "met", "heard")),
            "the",
            generator.choice(("sea", "dog")),
            ".",
        ]
        for _ in range(generator.randint(4, 16))
    ]
    words = [word for sentence in sentences for word in sentence]
    places = [[[place, place] for place, word in enumerate(words) if word == name] for name in people]
    return {"id": f"d{number}", "sentences": sentences, "clusters": [each for each in places if len(each) > 1]}


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa of random weights, documents, and a run file."""
    folder = tmp_path_factory.mktemp("clusters")
    write_small_roberta(folder / "roberta", test_data)
    (folder / "documents").mkdir()
    generator, number = random.Random(0), 0
    for split, count in (("train", 64), ("validation", 8), ("test", 8)):
        with (folder / "documents" / f"{split}.jsonl").open("w") as file:
            for _ in range(count):
                file.write(json.dumps(document_of(number, generator)) + "\n")
                number += 1
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["start_to_end", "coarse_to_fine"])
def test_a_run_finds_clusters_and_what_it_reports_is_what_its_export_finds(
    kind: str, workplace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    store = f"sqlite:///{workplace}/{kind}.db"
    (workplace / f"{kind}.db").write_bytes(empty_store.read_bytes())
    assert main(["train", "run.yaml", f"name={kind}", f"head.kind={kind}", f"tracking.uri={store}"]) == 0
    run = Run.open(Path("runs") / kind)
    result, test = run.newest_result(), run.evaluations()[-1]["test"]
    table = run.test_table()
    records = [json.loads(line) for line in Path("documents/test.jsonl").read_text().splitlines()]
    assert test["conll_f1"] > 0.9
    assert test["baselines"]["every_mention_alone"]["conll_f1"] == 0  # single mentions do not count
    assert test["longer_texts"] > 0
    found = [_mentions(line["prediction"]) for line in table]
    official = coreference_scores([_mentions(record["clusters"]) for record in records], found)
    assert {name: test[name] for name in official} == official

    # What is written in CoNLL's columns is read as the same clusters.
    columns = workplace / f"{kind}_columns"
    columns.mkdir()
    for split in ("train", "validation", "test"):
        (columns / f"{split}.conll").write_text((result / "predictions-test.conll").read_text())
    again = task_of(load("run.yaml", [f"data.source={columns}", f"data.directory={kind}_read"]))
    again.data.prepare(in_this_process)
    assert [_mentions(each.clusters) for each in again.data.held_out("test")] == found

    page = (run.paths.root / "report/report.html").read_text()
    assert all(told in page for told in ("CEAF of entities", "as annotated", "Beside baselines"))

    texts = [" ".join(word for sentence in record["sentences"] for word in sentence) for record in records]
    Path("asked.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert main(["predict", f"runs/{kind}", "asked.jsonl", "--output", f"{kind}.jsonl"]) == 0
    answers = [json.loads(line) for line in Path(f"{kind}.jsonl").read_text().splitlines()]
    for answer, text, record, clusters in zip(answers, texts, records, found, strict=True):
        words = [word for sentence in record["sentences"] for word in sentence]
        told = [[" ".join(words[first : last + 1]) for first, last in cluster] for cluster in clusters]
        assert [[mention["text"] for mention in cluster] for cluster in answer["clusters"]] == told
        assert all(text[m["start"] : m["end"]] == m["text"] for cluster in answer["clusters"] for m in cluster)
    capsys.readouterr()
    assert main(["predict", f"runs/{kind}", texts[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == answers[0]["clusters"]
    mlflow.set_tracking_uri(store)
    served = mlflow.pyfunc.load_model("models:/clusters/1").predict(pandas.DataFrame({"text": texts}))
    assert [list(map(list, each)) for each in served["clusters"]] == [answer["clusters"] for answer in answers]
    assert open_model(run.paths.export_directory, "cluster")({"text": "Ada"}, {})["clusters"] == []


def _mentions(clusters: list[list[list[int]]]) -> list[list[tuple[int, int]]]:
    return [[(first, last) for first, last in cluster] for cluster in clusters]


@pytest.mark.parametrize("kind", ["start_to_end", "coarse_to_fine"])
def test_the_loss_is_the_same_for_every_division_of_a_batch(
    kind: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml", [f"data.directory={tmp_path / 'data'}", f"head.kind={kind}"]))
    task.data.prepare(in_this_process)
    task.write_start(tmp_path / "start")
    model = task.build_model(0, tmp_path / "start").eval()

    def mean_loss(micro_batch_size: int) -> float:
        batches = islice(task.data.batches(0, BatchShare(0, 1, micro_batch_size), ()), 8 // micro_batch_size)
        losses = [task.objective.loss(model, batch) * task.objective.predictions(batch) / 8 for batch in batches]
        return torch.stack(losses).sum().item()

    whole = mean_loss(8)
    assert [mean_loss(1), mean_loss(2)] == pytest.approx([whole, whole], rel=1e-5)


def test_mentions_are_shown_within_each_other_and_cut_ones_not_at_all() -> None:
    words = ["the", "dog", "of", "Ada", "barks", "at", "Bob"]
    found = mention_pieces(words, [[(0, 3), (6, 7)], [(3, 3)], [(1, 4)]])
    assert "".join(str(each) for each in found if each != " ") == "0thedogof1AdaNoneNonebarksatBob"
