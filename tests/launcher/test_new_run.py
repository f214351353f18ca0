"""Claims about `longformer new`: what it writes loads, can be planned, covers the data and fits into the memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.prepare.survey import Survey
from launcher.cli import main
from launcher.config.load import load
from launcher.planning.fit import fits, phase_memory
from launcher.planning.gpus import GPUS, Gpu
from launcher.planning.new_run.base_model import NAMED, find_base_model
from launcher.planning.new_run.recipe import choose
from launcher.planning.new_run.yaml_writer import run_file_text
from launcher.tasks.recipes import RecipeRequest, covered
from launcher.tasks.registry import recipe_of, task_of
from longformer.errors import LongformerError

TASK_OF: dict[str, Any] = {"roberta": "mlm", "longformer": "mlm", "bart": "summarize", "led": "summarize"}


def survey_of(lengths: list[int], documents: int) -> Survey:
    sizes = np.sort(lengths)
    return Survey("json lines", "document=a,summary=b", sizes, sizes // 10 + 1, documents, 3, (("Latin", 1.0),))


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(NAMED)),
    lengths=st.lists(st.integers(1, 100_000), min_size=1, max_size=5),
    documents=st.integers(5, 10_000_000),
    gpu=st.sampled_from(sorted(GPUS)),
    ranks=st.sampled_from([1, 2, 3, 8]),
)
def test_whatever_the_data_looks_like_the_run_file_loads_and_fits(
    name: str, lengths: list[int], documents: int, gpu: str, ranks: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    task, survey = TASK_OF[name], survey_of(lengths, documents)
    recipe = recipe_of(task)
    start = find_base_model(name, task)
    request = RecipeRequest(recipe, "some", Path("some.jsonl"), start, survey, GPUS[gpu], ranks)
    content = choose(request)
    file = tmp_path_factory.mktemp("new") / "some.yaml"
    file.write_text(run_file_text(content, request))
    assert yaml.safe_load(file.read_text()) == content
    config = load(file)
    config.check_ranks(ranks)
    for index in range(len(config.phases)):
        cost = task_of(config).cost(index)
        assert fits(phase_memory(cost, config, index, ranks=ranks, on_gpu=True), GPUS[gpu])
    longest = config.phases[-1].sequence_length
    assert min(covered(survey.lengths), recipe.max_length) <= longest, (
        "these memories have room for the published lengths"
    )
    assert longest <= max(512, recipe.max_length)


def test_less_memory_makes_for_smaller_batches_then_recomputation_then_shorter_documents() -> None:
    start, survey = find_base_model("bart", "summarize"), survey_of([100_000], 100_000)
    recipe = recipe_of("summarize")

    def chosen(gigabytes: float) -> tuple[int, int, bool]:
        machine = Gpu("small", round(gigabytes * 1e9), {"bf16": 0.0})
        content = choose(RecipeRequest(recipe, "some", Path("some.jsonl"), start, survey, machine, ranks=1))
        phase = content["phases"][-1]
        return phase["sequence_length"], phase["micro_batch_size"], content["training"]["activation_checkpointing"]

    assert [chosen(gigabytes) for gigabytes in (80, 8, 6, 5)] == [
        (16_384, 16, False),
        (16_384, 1, False),
        (16_384, 2, True),
        (8_192, 4, True),
    ]
    with pytest.raises(LongformerError, match="does not fit into the 1 GB of small even with 512 tokens"):
        chosen(1)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.jsonl"
    lines = [{"id": str(number), "body": "EVQLVESGGG" * 20 * number, "abstract": "QVQL"} for number in range(1, 21)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_real_model_and_documents_give_a_run_file_that_check_and_plan_accept(
    documents: Path, tmp_path: Path, test_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, source = tmp_path / "my antibodies.yaml", test_data / "roberta_antibody" / "hf_vh"
    command = ["new", str(file), "--from", str(source), "--task", "mlm", "--data", str(documents)]
    assert main(command) == 0
    written = file.read_text()
    assert "20 documents in json lines, as body" in written
    assert "the longest 4,000" in written  # a token each letter
    config = load(file)
    assert config.name == "my-antibodies"
    assert config.phases[0].sequence_length == 4_096
    assert main(["check", str(file)]) == 0
    capsys.readouterr()
    assert main(["plan", str(file), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["phases"][0]["steps"] == config.phases[0].total_steps

    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert file.read_text() == written


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"--from": "absent"}, "--from absent is no folder with a model; give one, or one of roberta, bart"),
        ({"--from": "bart"}, "--task mlm takes models of the families roberta"),
        ({"--data": "absent.jsonl"}, "absent.jsonl does not exist"),
        ({"--data": "numbers.jsonl"}, "has no field of text; it has id (int)"),
        ({"--gpu": "abacus"}, "--gpu abacus is not known"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence_and_nothing_is_written(
    options: dict[str, str],
    sentence: str,
    documents: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(documents.parent)
    Path("numbers.jsonl").write_text('{"id": 7}\n')
    given_options = {"--from": "roberta", "--task": "mlm", "--data": "documents.jsonl"} | options
    assert main(["new", "run.yaml", *(word for pair in given_options.items() for word in pair)]) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert not Path("run.yaml").exists()
