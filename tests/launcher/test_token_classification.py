"""Claims about labelling words: what a run learns, judges and exports is what `predict` answers."""

import json
import random
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LongformerForTokenClassification, RobertaTokenizer

from data_pipeline.prepare.parallel import in_this_process
from launcher.cli import main
from launcher.config.load import load
from launcher.tasks.base import EvaluationRequest, Task
from launcher.tasks.data import BatchShare
from launcher.tasks.registry import task_of
from longformer.errors import LongformerError
from longformer.evaluation.entities import entity_scores
from longformer.inference.classification import Reading
from longformer.inference.predictor import Predictor
from longformer.inference.serving import open_for_many, open_model
from longformer.inference.words import sentence_lengths, words_of
from longformer.models import LongformerConfig
from tests.launcher.test_html_report import Reader, has_ink
from tests.small_roberta import write_small_roberta

RUN_FILE = """
name: names
task: token_classification
model: {source: roberta, max_length: 128, window: 16}
data: {directory: prepared, source: words, class_weights: balanced}
training: {zero_stage: 1}
phases:
- {name: label, sequence_length: 32, learning_rate: 1.0e-2, steps: 40, batch_size: 8}
"""
NAMES = [["Anna"], ["Anna", "Smith"], ["New", "York", "City"], ["Berlin"]]
TYPES = ["PER", "PER", "LOC", "LOC"]
OTHERS = ["he", "went", "to", "the", "unbelievably", "(", ")", ".", "U.S.", "naïveté"]


def make_words(folder: Path) -> None:
    """Writes texts of about 60 words, names among them, as JSON lines."""
    generator = random.Random(0)
    folder.mkdir()
    for split, count in (("train", 60), ("validation", 6), ("test", 6)):
        lines = []
        for _ in range(count):
            words, labels = [], []
            while len(words) < 60:
                if generator.random() < 0.2:
                    number = generator.randrange(len(NAMES))
                    words += NAMES[number]
                    labels += [f"{'I' if place else 'B'}-{TYPES[number]}" for place in range(len(NAMES[number]))]
                else:
                    words.append(generator.choice(OTHERS))
                    labels.append("O")
            lines.append(json.dumps({"words": words, "labels": labels}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def workplace(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small RoBERTa of random weights, RoBERTa's tokenizer, words with labels, and a run file."""
    folder = tmp_path_factory.mktemp("words")
    write_small_roberta(folder / "roberta", test_data)
    make_words(folder / "words")
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder


def trained(task: Task[Any, Any], folder: Path, *, steps: int = 40) -> Any:
    """Returns the model of a task after its steps, written to a folder too."""
    task.data.prepare(in_this_process)
    task.write_start(folder / "start")
    model: Any = task.build_model(0, folder / "start")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in islice(task.data.batches(0, BatchShare(0, 1, 8), ()), steps):
        optimizer.zero_grad()
        task.objective.loss(model, batch).backward()
        optimizer.step()
    task.write_model(0, dict(model.named_parameters()), folder / "start", folder / "model")
    return model.eval()


def test_what_is_reported_is_what_the_exported_model_answers(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    task = task_of(load("run.yaml"))
    model = trained(task, workplace)
    evaluation = task.evaluate(model, 0, EvaluationRequest(split="test"))
    records = [json.loads(line) for line in Path("words/test.jsonl").read_text().splitlines()]
    assert evaluation.scores["micro_f1"] == 1.0
    assert evaluation.scores["longer_texts"] == evaluation.scores["texts"] == len(evaluation.table) == len(records)
    # Every word once, though each text is read in several windows.
    assert evaluation.scores["words"] == sum(len(record["words"]) for record in records)
    assert evaluation.scores["unread_words"] == 0
    assert {name: each["entities"] for name, each in evaluation.scores["per_type"].items()} == {
        name: sum(record["labels"].count(f"B-{name}") for record in records) for name in ("LOC", "PER")
    }
    predictor = Predictor.load(Path("model"), "label")
    for record, line in zip(records, evaluation.table, strict=True):
        assert (line["words"], line["label"]) == (record["words"], record["labels"])
        # One word a line: the words as they are.
        labels = predictor.label("\n".join(record["words"]))
        assert [each.text for each in labels] == record["words"]
        assert [each.label for each in labels] == line["prediction"]
    # The reading and the classes lie in the folder, which transformers reads with the same logits.
    config = json.loads(Path("model/config.json").read_text())
    assert config["id2label"] == {"0": "B-LOC", "1": "B-PER", "2": "I-LOC", "3": "I-PER", "4": "O"}
    assert config["reading"] == {"length": 32, "long_documents": "windows"}
    theirs = LongformerForTokenClassification.from_pretrained("model").eval()
    tokenizer = RobertaTokenizer.from_pretrained("model", add_prefix_space=True)
    batch = tokenizer(records[0]["words"][:20], is_split_into_words=True, return_tensors="pt")
    torch.testing.assert_close(model(**batch).logits, theirs(**batch).logits, rtol=1e-4, atol=1e-4)

    text = "to the (unbelievably) New York City went Anna Smith."
    assert main(["predict", "model", text, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["text"] for each in answer["result"]][-3:] == ["Anna", "Smith", "."]
    assert [(each["label"], each["text"]) for each in answer["entities"]] == [
        ("LOC", "New York City"), ("PER", "Anna Smith")
    ]  # fmt: skip
    assert all(text[each["start"] :].startswith(each["text"]) for each in answer["entities"])
    served = open_model(Path("model"), "label")({"text": text}, {})
    assert served == {"labels": answer["result"], "entities": answer["entities"]}


def test_what_is_not_read_is_counted_and_plain_labels_are_scored_by_word(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    for split in ("train", "validation", "test"):
        lines = map(json.loads, Path(f"words/{split}.jsonl").read_text().splitlines())
        plain = [{**line, "labels": [int(label != "O") for label in line["labels"]]} for line in lines]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, plain)))
    overrides = [f"data.source={tmp_path}", f"data.directory={tmp_path / 'out'}", "data.long_documents=truncate_end"]
    task = task_of(load("run.yaml", overrides))
    task.data.prepare(in_this_process)
    task.write_start(tmp_path / "start")
    evaluation = task.evaluate(task.build_model(0, tmp_path / "start"), 0, EvaluationRequest(split="test"))
    scores = evaluation.scores
    pairs = [pair for line in evaluation.table for pair in zip(line["label"], line["prediction"], strict=True)]
    read = [pair for pair in pairs if pair[1] is not None]
    assert (scores["words"], scores["unread_words"]) == (len(pairs), len(pairs) - len(read))
    assert 0 < len(read) < len(pairs)
    assert scores["accuracy"] == pytest.approx(sum(label == found for label, found in read) / len(read))
    assert set(scores["per_class"]) == {"0", "1"}


def test_groups_by_length_add_up_and_windows_of_512_tokens_are_scored_on_the_same_words(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    for split in ("train", "validation", "test"):
        records = list(map(json.loads, Path(f"words/{split}.jsonl").read_text().splitlines()))
        joined = [records[:1], records[:6], records * 3] if split == "test" else [records]
        lines = [{name: [each for one in some for each in one[name]] for name in records[0]} for some in joined]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    overrides = [f"data.source={tmp_path}", f"data.directory={tmp_path / 'out'}", "data.long_documents=truncate_end"]
    overrides += ["model.max_length=1024", "phases.0.sequence_length=700"]
    task = task_of(load("run.yaml", overrides))
    task.data.prepare(in_this_process)
    task.write_start(tmp_path / "start")
    model = task.build_model(0, tmp_path / "start")
    evaluation = task.evaluate(model, 0, EvaluationRequest(split="test", after_phase=True))
    scores, groups = evaluation.scores, evaluation.scores["by_length"].values()
    assert [group["texts"] for group in groups] == [1, 1, 1]
    assert sum(group["words"] for group in groups) == scores["words"] - scores["unread_words"] < scores["words"]
    right = sum(group["words"] * group["accuracy"] for group in groups)
    assert right == pytest.approx(scores["accuracy"] * (scores["words"] - scores["unread_words"]))

    windows = task_of(load("run.yaml", [*overrides, "data.long_documents=windows"]))
    short = windows.evaluate(model, 0, EvaluationRequest(split="test", sequence_length=512))
    read = [sum(score is not None for score in line["score"]) for line in evaluation.table]
    same = entity_scores(*(
        [line[name][:words] for line, words in zip(short.table, read, strict=True)] for name in ("label", "prediction")
    ))  # fmt: skip
    assert scores["windows_of_512_tokens"]["accuracy"] == pytest.approx(same["accuracy"])
    assert scores["windows_of_512_tokens"]["micro_f1"] == pytest.approx(same["micro_f1"])


def test_many_texts_are_labelled_in_batches_as_one_by_one(workplace: Path, tmp_path: Path) -> None:
    config = json.loads((workplace / "model/config.json").read_text())
    folders = [workplace / "model", tmp_path / "of_tokens"]
    shutil.copytree(*folders)
    del config["reading"]
    (folders[1] / "config.json").write_text(json.dumps(config))
    generator = random.Random(0)
    texts = [" ".join(generator.choices(sum(NAMES, OTHERS), k=length)) for length in (40, 3, 1, 90, 12, 40)]
    records: list[dict[str, Any]] = [{"text": text} for text in (*texts, " ", None)]
    for folder in folders:
        one, many = open_model(folder, "label"), open_for_many(folder, "label")(records, {}, 3)
        for record, found in zip(records[:-2], many[:-2], strict=True):
            for name, labels in one(record, {}).items():
                assert [each.pop("score") for each in found[name]] == pytest.approx(
                    [each.pop("score") for each in labels], abs=1e-5
                )
                assert found[name] == labels
        assert [list(found) for found in many[-2:]] == [["error"], ["error"]]


@given(st.text(st.sampled_from("ab.?! \n\t\r\x0b\x85\u2028\u3002\"'5A"), max_size=40))
def test_every_word_of_a_text_is_in_one_sentence(text: str) -> None:
    words = words_of(text)
    lengths = sentence_lengths(text, words)
    assert sum(lengths) == len(words)
    assert all(lengths)


def test_sentences_end_where_rules_say_so_and_of_lists_of_words_at_empty_lines() -> None:
    for text, expected in (
        ("Dr. Smith came. She left\nat 5. Then", [5, 2, 3, 1]),
        ("A\nman\n\nruns\n.", [2, 2]),
    ):
        assert sentence_lengths(text, words_of(text)) == expected


def test_words_of_a_text_are_parted_by_white_space_and_marks_at_their_ends() -> None:
    def found(text: str) -> list[str]:
        return [text[start:end] for start, end in words_of(text)]

    assert found("(In New-York,  U.S.) it's 5 €… ") == [
        "(", "In", "New-York", ",", "U.S", ".", ")", "it's", "5", "€", "…"
    ]  # fmt: skip
    assert found("नमस्ते।") == ["नमस्ते", "।"]
    assert found("U.S.\n\n(\n5%\n") == ["U.S.", "(", "5%"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("data.words=1", "both should be fields of records, or both numbers of columns"),
        ("data.labels=words", "words and labels are both words"),
        ("data.classes=[O]", "should be two or more different labels"),
    ],
)
def test_impossible_data_is_refused(
    change: str, sentence: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    assert main(["check", "run.yaml", change]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "told", [{"length": 2, "long_documents": "windows"}, {"length": 513}, {"long_documents": "some"}, {"stride": 1}, []]
)
def test_a_config_that_tells_of_no_way_of_reading_is_refused(told: Any) -> None:
    config = LongformerConfig(other={"reading": told})
    with pytest.raises(LongformerError, match="which is no way of reading texts"):
        Reading.of(config, 512)


def test_weights_of_other_classes_are_refused_before_any_rank_starts(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    weighted = ["run.yaml", "name=weighted", "data.directory=weighted", "data.class_weights={B-NOBODY: 2.0}"]
    for command in ("train", "check"):  # the first prepares what the second looks at
        assert main([command, *weighted]) == 2
        assert "data.class_weights names ['B-NOBODY'], but the classes are" in capsys.readouterr().err
    assert not list(workplace.glob("runs/weighted/logs/*"))


@pytest.mark.slow
def test_a_run_labels_words_from_its_data_to_its_report(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    assert main(["train", "run.yaml", "data.directory=again"]) == 0
    result = workplace / "runs" / "names" / "phases" / "01-label" / "result"
    test = json.loads((result / "evaluation.json").read_text())["test"]
    table = [json.loads(line) for line in (result / "predictions-test.jsonl").read_text().splitlines()]
    again = entity_scores([line["label"] for line in table], [line["prediction"] for line in table])
    assert test["micro_f1"] == pytest.approx(again["micro_f1"])
    assert test["micro_f1"] > 0.9
    summary = json.loads(Path("runs/names/report/summary.json").read_text())
    assert summary["dictionary_baseline"]["micro_f1"] == 1.0  # every name is always one
    page = Reader(Path("runs/names/report/report.html").read_text())
    assert all(map(has_ink, page.pictures()))
    for told in ("a dictionary of the training texts", "Right and wrong", "LOC", "none", "Surest mistakes"):
        assert told in page.text
    capsys.readouterr()
    assert main(["evaluate", "runs/names", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["micro_f1"] == pytest.approx(test["micro_f1"])
    assert main(["predict", "runs/names", "\n".join(table[0]["words"]), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["label"] for each in answer["result"]] == table[0]["prediction"]
