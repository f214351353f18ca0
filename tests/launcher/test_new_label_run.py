"""Claims about `longformer new` for texts with labels: it sees what the fields are, says it, and `check` accepts it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.prepare.survey_labels import find_labelled
from launcher.cli import main
from launcher.config.load import load
from tests.launcher.test_check import write_model

COUNT = 200


def as_csv(columns: str, *cells: Callable[[int], Any]) -> str:
    lines = [",".join(str(cell(number)) for cell in cells) for number in range(COUNT)]
    return "\n".join([columns, *lines]) + "\n"


def text(number: int) -> str:
    return f"the review number {number} of a film"


def few(number: int) -> int:
    return int(number % 25 == 3)


DATA = {
    "classes.csv": as_csv("id,review,verdict", lambda n: f"r{n}", text, lambda n: "rare" if few(n) else "usual"),
    "several.csv": as_csv("text,labels", text, lambda n: ("funny; sad", "sad", "long")[n % 3]),
    "flags.csv": as_csv("uid,text,funny,sad", str, text, lambda n: n % 2, few),
    "numbers.csv": as_csv("review,rating", text, lambda n: n % 7 / 2),
    "stars.csv": as_csv("review,stars", text, lambda n: 1 + n % 5),
    "identifiers.csv": as_csv("text,label", text, lambda n: f"r{n}"),
    "none.csv": as_csv("id,text", lambda n: f"r{n}", text),
    "rows.csv": as_csv("text,label", text, int),
    "names.jsonl": "".join(
        json.dumps({"id": n, "tokens": ["EU", "rejects", f"w{n}"], "ner_tags": ["B-ORG", "O", "O"]}) + "\n"
        for n in range(COUNT)
    ),
    "columns.txt": "\n\n".join(f"0 EU NNP B-ORG\n1 rejects VBZ O\n2 w{n} NN O" for n in range(COUNT)) + "\n",
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16, "type_vocab_size": 1}
    write_model(Path("model"), "roberta", "lm_head.bias", **shape)
    for name, content in DATA.items():
        Path(name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("task", "data", "section", "metric", "told"),
    [
        ("classify", "classes.csv", ("review", "verdict", "single_label"), "macro_f1", "rarest, rare, stands there 8"),
        ("classify", "several.csv", ("text", "labels", "multi_label"), "micro_f1", "of 3 classes: sad 50.2%"),
        ("classify", "flags.csv", ("text", ("funny", "sad"), "multi_label"), "macro_f1", "try data.class_weights"),
        ("classify", "numbers.csv", ("review", "rating", "regression"), "root_mean_squared_error", "labels: numbers"),
        ("classify", "stars.csv", ("review", "stars", "single_label"), "accuracy", "of 5 classes"),
        ("label", "names.jsonl", ("tokens", "ner_tags"), "micro_f1", "of 2 classes: O 66.7%, B-ORG 33.3%"),
        ("label", "columns.txt", (2, -1), "micro_f1", "of 2 classes: O 66.7%"),
    ],
)
def test_fields_and_labels_are_seen_and_the_run_file_is_valid(
    task: str, data: str, section: tuple[Any, ...], metric: str, told: str, workplace: Path
) -> None:
    assert main(["new", "run.yaml", "--from", "model", "--task", task, "--data", data]) == 0
    assert told in Path("run.yaml").read_text()
    assert main(["check", "run.yaml"]) == 0
    config: Any = load(Path("run.yaml"))
    keys = ("text", "label", "problem") if task == "classify" else ("words", "labels")
    assert tuple(getattr(config.data, key) for key in keys) == section
    (phase,) = config.phases
    assert (phase.best.metric, phase.best.patience) == (metric, 3)
    # 180 texts 15 times are 2,700; 200 updates or more of them.
    assert (phase.epochs, phase.batch_size, phase.sequence_length) == (15, 8, 512)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["model", "classify", "identifiers.csv"], "has 200 different values in 200 examples (r0, r1, r2, ...), as"),
        (["model", "classify", "none.csv"], "none.csv has no field that looks like a label"),
        (["model", "label", "stars.csv"], "stars.csv has no two lists of the same lengths, words and their labels"),
        (["roberta", "classify", "stars.csv"], "looks at the model: put roberta-base into models/roberta-base"),
    ],
)
def test_what_is_no_label_is_refused_in_one_sentence(
    options: list[str], sentence: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, task, data = options
    assert main(["new", "run.yaml", "--from", model, "--task", task, "--data", data]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_row_numbers_are_suspected_and_hyperpartisan_is_known(workplace: Path, test_data: Path) -> None:
    found = find_labelled(Path("rows.csv"))
    assert found.section["problem"] == "regression"
    assert found.notes == ("every label is another whole number: is it an identifier, not a label?",)
    assert find_labelled(test_data / "hyperpartisan").section == {"layout": "hyperpartisan_clean"}
