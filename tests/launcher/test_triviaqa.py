"""TriviaQA: its real sample as published, and one prediction per question over its documents."""

import json
import re
import tarfile
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.triviaqa import Domain, triviaqa
from launcher.cli import main
from launcher.runs.run import Run
from longformer.evaluation.question_answering import trivia_normalized, trivia_scores
from tests.small_roberta import write_small_roberta

RUN_FILE = """
name: trivia
task: triviaqa
model: {source: roberta, max_length: 512, window: 32}
data: {directory: prepared, source: sample}
training: {zero_stage: 1}
phases:
- {name: answer, sequence_length: 512, learning_rate: 3.0e-3, steps: 6, batch_size: 4, micro_batch_size: 2}
"""


@pytest.fixture
def sample(test_data: Path, tmp_path: Path) -> Path:
    """The published sample, unpacked."""
    with tarfile.open(test_data / "triviaqa_sample" / "triviaqa-sample.tgz") as archive:
        archive.extractall(tmp_path / "sample")
    return tmp_path / "sample"


def read_all(source: Path, domain: Domain = "wikipedia", quarantine: Quarantine | None = None) -> list[RawExample]:
    corpus = triviaqa(source, domain, max_words=4096)
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def test_every_document_of_the_sample_is_read_with_all_places_of_all_aliases(sample: Path) -> None:
    found = read_all(sample)
    assert [(each.split, each.fields["id"]) for each in found] == [
        *[("train", "tc_3")] * 2, *[("train", "tc_8")] * 3, ("train", "tc_9"), ("train", "tc_10"),
        ("validation", "tc_33"), *[("validation", "tc_40")] * 2,
    ]  # fmt: skip
    for each in found:
        context = each.fields["context"]
        assert len(context.split()) <= 4096
        texts = [context[start:end] for start, end in each.fields["text_spans"]]
        wanted = {trivia_normalized(answer) for answer in each.fields["answers"]}
        assert {trivia_normalized(text) for text in texts} <= wanted
        for text in set(texts):  # no place is forgotten, also within a longer alias
            places = len(re.findall(rf"(?<!\w){re.escape(text)}(?!\w)", context))
            assert places == sum(text in each for each in texts)
    web = read_all(sample, "web")
    assert len(web) == 12
    assert {"tc_33--Andrew_Lloyd_Webber.txt", "tc_33--35/35_995.txt"} <= {each.fields["id"] for each in web}


def test_missing_evidence_and_files_are_named(sample: Path) -> None:
    (sample / "evidence" / "wikipedia" / "England.txt").unlink()
    quarantine = Quarantine(2)
    assert len(read_all(sample, quarantine=quarantine)) == 9
    ((name, reason),) = quarantine.items()
    assert name.endswith("wikipedia-train.json question tc_3, England.txt")
    assert reason.endswith("England.txt is missing")
    (sample / "qa" / "wikipedia-dev.json").unlink()
    with pytest.raises(DataError, match=r"wikipedia-dev\.json is missing: data\.source should be the folder with qa"):
        triviaqa(sample, "wikipedia", max_words=4096)


@pytest.mark.slow
def test_a_run_gives_one_answer_a_question_over_its_documents_and_the_official_score(
    sample: Path, test_data: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_small_roberta(tmp_path / "roberta", test_data)
    verified = json.loads((sample / "qa" / "wikipedia-dev.json").read_text())
    (sample / "qa" / "verified-wikipedia-dev.json").write_text(json.dumps(verified))
    Path("run.yaml").write_text(RUN_FILE)
    Path("mlflow.db").write_bytes(empty_store.read_bytes())
    assert main(["train", "run.yaml", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]) == 0
    run = Run.open(Path("runs/trivia"))
    result, test = run.newest_result(), run.evaluations()[-1]["test"]
    answers = json.loads((result / "answers-test.json").read_text())
    assert sorted(answers) == ["tc_33", "tc_40"]
    gold = {each["QuestionId"]: each["Answer"]["NormalizedAliases"] for each in verified["Data"]}
    official = trivia_scores(gold, answers)
    assert [100 * test["exact"], 100 * test["f1"]] == pytest.approx([official["exact_match"], official["f1"]])
    # Of what fits into 512 tokens.
    assert (test["questions"], test["longer_contexts"], test["sequence_length"]) == (2, 3, 512)
    assert "no_answer_above" not in test
    contexts = {each.fields["context"] for each in read_all(sample)}
    assert all(any(answer in context for context in contexts) for answer in answers.values())
