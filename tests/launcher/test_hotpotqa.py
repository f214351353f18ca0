"""HotpotQA: its real sample, evidence of two paragraphs, two stages; what is reported is what the export answers."""

import json
import random
from collections.abc import Mapping
from itertools import chain, combinations, islice
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.hotpotqa import hotpotqa
from data_pipeline.sources.quarantine import Quarantine
from launcher.cli import main
from launcher.config.load import load
from launcher.runs.run import Run
from launcher.tasks.data import BatchShare
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError
from longformer.evaluation.question_answering import HotpotAnswer, hotpot_scores
from longformer.inference.hops import evidence, selected
from longformer.inference.serving import open_model
from longformer.training.objectives import HOP_WEIGHTS
from tests.small_roberta import write_small_roberta

RUN_FILE = """
name: hops
task: hotpotqa
model: {source: roberta, max_length: 256, window: 32}
data: {directory: prepared, source: hotpot, longest_answer: 8}
training: {zero_stage: 1}
phases:
- {name: answer, sequence_length: 96, learning_rate: 1.0e-2, steps: 140, batch_size: 16, micro_batch_size: 8}
evaluation: {select_paragraphs: true}
tracking: {register_as: hops}
"""
NAMES = ("Ada", "Zoë Çelik", "Bob")
GOOD = {
    "_id": "1", "question": "Who ran?", "answer": "Bob", "type": "bridge",
    "supporting_facts": [["Run", 1], ["Bob", 0]],
    "context": [["Run", ["It was long.", " Bob ran it."]], ["Bob", ["He is Bob."]], ["Ann", ["Bob sat."]]],
}  # fmt: skip


def record_of(number: int, generator: random.Random) -> dict[str, Any]:
    """A question about four paragraphs, of which the two that hold `gold` are needed; every fourth is yes or no."""
    gold = generator.sample(range(4), 2)
    name = generator.choice(NAMES)
    context, facts = [], []
    for paragraph in range(4):
        sentences = [f" It is {word}." for word in generator.choices(("old", "new", "long", "red"), k=2)]
        if paragraph in gold:
            place = generator.randrange(2)
            sentences[place] = f" The gold is {name}." if paragraph == gold[0] else " The gold is here."
            facts.append([f"Page {paragraph}", place])
        context.append([f"Page {paragraph}", sentences])
    kind = number % 4 == 0
    asked = {"_id": f"q{number}", "type": "comparison" if kind else "bridge", "supporting_facts": facts}
    if kind:
        return {**asked, "context": context, "question": "Is it here?", "answer": "yes"}
    return {**asked, "context": context, "question": "Who is gold?", "answer": name}


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa of random weights, RoBERTa's tokenizer, questions, and a run file."""
    folder = tmp_path_factory.mktemp("hops")
    write_small_roberta(folder / "roberta", test_data)
    (folder / "hotpot").mkdir()
    generator, number = random.Random(0), 0
    for split, count in (("train", 128), ("dev", 12), ("test", 12)):
        records = [record_of(number + each, generator) for each in range(count)]
        (folder / "hotpot" / f"{split}.json").write_text(json.dumps(records))
        number += count
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


def read_all(source: Path, quarantine: Quarantine | None = None) -> list[RawExample]:
    corpus = hotpotqa(source)
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def marked(example: RawExample) -> list[str]:
    lines = example.texts["text"].split("\n")
    return [lines[line][start:end] for line, start, end in example.fields["text_spans"]]


def test_the_real_sample_is_read_with_its_answers_and_facts(test_data: Path) -> None:
    file = test_data / "hotpotqa_100" / "hotpot_dev_distractor_first100.json"
    found, published = read_all(file), json.loads(file.read_text())
    assert len(found) == len(published) == 100
    for example, record in zip(found, published, strict=True):
        assert {*marked(example)} == (set() if record["answer"] in ("yes", "no") else {record["answer"]})
        titles = [title for title, _ in example.fields["paragraphs"]]
        assert titles == record["context"]["title"]
        facts = record["supporting_facts"]
        assert example.fields["facts"] == list(zip(facts["title"], facts["sent_id"], strict=True))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({}, [(2, 1, 4), (4, 6, 9)]),  # in the facts
        ({"supporting_facts": [["Run", 0]]}, [(2, 1, 4)]),  # in the paragraphs of the facts
        ({"supporting_facts": [["Ann", 0]], "answer": "Ann"}, [(5, 0, 3)]),  # in their titles
        ({"supporting_facts": [["Run", 0]], "answer": "He is Bob"}, [(4, 0, 9)]),  # anywhere
        ({"answer": "no"}, []),
        ({"answer": "nowhere"}, []),
    ],
)
def test_an_answer_is_marked_as_near_to_the_facts_as_it_stands(
    change: dict[str, Any], lines: list[tuple[int, int, int]], tmp_path: Path
) -> None:
    (tmp_path / "train.json").write_text(json.dumps([{**GOOD, **change}]))
    (found,) = read_all(tmp_path)
    assert found.fields["text_spans"] == lines


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": ""}, "the question is empty"),
        ({"answer": 7}, "the answer is of the type int, but it should be a text"),
        ({"context": []}, "the context should be a list of titles with their sentences"),
        ({"context": [["Run", []]]}, "paragraph 1 of the context should be a title and its sentences"),
        ({"supporting_facts": [["Eve", 0]]}, "the supporting fact 'Eve' is the title of none of its paragraphs"),
        ({"supporting_facts": [["Run", "1"]]}, "should be pairs of a title and the number of a sentence"),
        ({"_id": "0"}, "another question has the same id, 0"),
    ],
)
def test_what_cannot_be_learned_is_named(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps([{**GOOD, "_id": "0"}, {**GOOD, **change}]))
    quarantine = Quarantine(1)
    assert len(read_all(tmp_path, quarantine)) == 1
    ((_, told),) = quarantine.items()
    assert reason in told


scores = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.floats(-5, 5), min_size=1, max_size=9)


@settings(max_examples=80, deadline=None)
@given(scores)
def test_evidence_is_the_best_of_all_sets_of_sentences_of_two_paragraphs(
    logits: Mapping[tuple[int, int], float],
) -> None:
    found = evidence(logits)
    wanted = min(2, len({paragraph for paragraph, _ in logits}))
    assert len({paragraph for paragraph, _ in found}) == wanted
    sets = chain.from_iterable(combinations(logits, size) for size in range(1, len(logits) + 1))
    best = max(sum(logits[fact] for fact in facts) for facts in sets if len({each for each, _ in facts}) == wanted)
    assert sum(logits[fact] for fact in found) == pytest.approx(best)


def test_a_second_stage_reads_the_best_two_paragraphs_and_up_to_five_that_are_likely() -> None:
    assert selected({0: -9.0, 1: 2.0, 2: -4.0, 3: -8.0}) == [1, 2]
    assert selected({0: -2.9, 1: 2.0, 2: 0.0, 3: -3.1, 4: 1.0, 5: -1.0, 6: -2.0}) == [1, 2, 4, 5, 6]
    assert selected({0: -9.0}) == [0]


@pytest.mark.slow
def test_a_run_answers_in_two_stages_and_what_it_reports_is_what_its_export_answers(
    workplace: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = f"tracking.uri=sqlite:///{workplace}/mlflow.db"
    assert main(["train", "run.yaml", store]) == 0
    run = Run.open(Path("runs/hops"))
    result, test = run.newest_result(), run.evaluations()[-1]["test"]
    table = [json.loads(line) for line in (result / "predictions-test.jsonl").read_text().splitlines()]
    records = json.loads(Path("hotpot/test.json").read_text())
    submission = json.loads((result / "answers-test.json").read_text())
    gold = {
        each["_id"]: HotpotAnswer(each["answer"], [(title, place) for title, place in each["supporting_facts"]])
        for each in records
    }
    facts = {name: [(title, place) for title, place in found] for name, found in submission["sp"].items()}
    official = hotpot_scores(gold, submission["answer"], facts)
    assert {name: test[name] for name in official} == pytest.approx(official)
    assert test["joint_f1"] > 0.6
    assert test["reachable"]["joint_em"] == 1.0
    assert set(test["by_kind"]) == {"bridge", "comparison"}
    assert all(len({title for title, _ in found}) == 2 for found in facts.values())
    page = Path("runs/hops/report/report.html").read_text()
    assert all(told in page for told in ("Kinds of questions", "comparison", "Surest mistakes"))

    capsys.readouterr()
    assert main(["evaluate", "runs/hops", "--sequence-length", "48", "--json"]) == 0
    cut = json.loads(capsys.readouterr().out)
    for name in ("f1", "sp_recall", "joint_recall"):
        assert cut[name] <= cut["reachable"][name] < 1

    with Path("asked.jsonl").open("w") as file:
        for record in records:
            paragraphs = ["\n".join([title, *sentences]) for title, sentences in record["context"]]
            file.write(json.dumps({"question": record["question"], "paragraphs": paragraphs}) + "\n")
    assert main(["predict", "runs/hops", "asked.jsonl", "--output", "answers.jsonl"]) == 0
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    for answer, line in zip(answers, table, strict=True):
        assert answer["answer"] == line["prediction"]
        assert answer["score"] == pytest.approx(line["score"], abs=1e-4)
        assert [[each["title"], each["sentence"]] for each in answer["facts"]] == line["facts"]
    asked = [json.loads(line) for line in Path("asked.jsonl").read_text().splitlines()]
    capsys.readouterr()
    text = "\n\n".join(asked[1]["paragraphs"])
    assert main(["predict", "runs/hops", text, "--question", asked[1]["question"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["text"] == answers[1]["answer"]
    mlflow.set_tracking_uri(f"sqlite:///{workplace}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/hops/1").predict(pandas.DataFrame(asked))
    assert served["answer"].tolist() == [answer["answer"] for answer in answers]
    for bad, sentence in (
        ({"question": "Who?" * 60, "paragraphs": ["A\nB"]}, "more than half of the 96 that are read"),
        ({"question": "Who?", "paragraphs": ["A"]}, "paragraph 1 has one line: give its title, and below it"),
        ({"question": "Who?", "paragraphs": []}, "no paragraphs are given"),
    ):
        with pytest.raises(LongformerError, match=sentence):
            open_model(run.paths.export_directory, "multi-hop")(bad, {})

    # The second stage sees the best of the four paragraphs, and its scores count what it was not shown.
    second = ["train", "run.yaml", "name=second", "data.selected=runs/hops", "data.directory=chosen", store]
    assert main([*second, "phases.0.steps=4", "tracking.register_as=null", "evaluation.select_paragraphs=false"]) == 0
    chosen = json.loads((result / "paragraphs-train.json").read_text())
    assert len(chosen) == 128
    later = task_of(load("run.yaml", ["data.selected=runs/hops", "data.directory=chosen"]))
    for example in later.data.held_out("train"):
        assert len(example.paragraphs) == len(chosen[example.identifier])
        assert len(example.facts) == 2


def test_the_loss_is_that_of_four_parts_for_every_division_of_a_batch(
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
    assert [mean_loss(1), mean_loss(4)] == pytest.approx([whole, whole], rel=1e-5)

    (batch,) = islice(task.data.batches(0, BatchShare(0, 1, 16), ()), 1)
    labels = ("start_positions", "end_positions", "answer_type", "sentence_labels", "paragraph_labels")
    output = model(**{name: each for name, each in batch.items() if name not in labels})
    expected = []
    for row in range(16):
        length = int(batch["attention_mask"][row].sum())
        parts = {"type": -output.type_logits[row].log_softmax(-1)[batch["answer_type"][row]]}
        spans = []
        for logits, places in (("start_logits", "start_positions"), ("end_logits", "end_positions")):
            wanted = sorted({place for place in batch[places][row].tolist() if place >= 0})
            spans.append(-output[logits][row, :length].softmax(-1)[wanted].sum().log())
        parts["span"] = sum(spans) / 2
        for name in ("sentence", "paragraph"):
            is_there = batch[f"{name}_labels"][row] >= 0
            right = batch[f"{name}_labels"][row, is_there].double()
            chance = output[f"{name}_logits"][row, is_there].double().sigmoid()
            parts[name] = -(right * chance.log() + (1 - right) * (1 - chance).log()).mean()
        expected.append(float(sum(HOP_WEIGHTS[name] * loss for name, loss in parts.items())))
    assert whole == pytest.approx(np.mean(expected), rel=1e-4)
