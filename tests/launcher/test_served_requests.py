"""Claims about what a served model is asked: each row is answered or refused alone, and nothing is remembered of it."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas
import pytest
from mlflow.exceptions import MlflowException

from data_pipeline.shards.prepared import PreparedData
from launcher.runs.run import Run
from launcher.tracking.registry.served_model import ServedModel
from longformer.benchmarks.memory import peak_memory
from longformer.errors import LongformerError
from longformer.inference.predictor import Predictor
from longformer.inference.queries import CANDIDATE_TOKENS, HOP_TOKENS
from longformer.inference.serving import ABILITIES, LONGEST_CLUSTERED, LONGEST_SCORED, example_of, open_model
from tests.launcher.test_evaluate_and_generate import finish_phase
from tests.launcher.test_inspect_and_predict import make_model

ARCHITECTURES = {
    "fill-mask": "LongformerForMaskedLM",
    "classify": "LongformerForSequenceClassification",
    "label": "LongformerForTokenClassification",
    "cluster": "LongformerForCoreference",
    "choose": "LongformerForMultipleChoice",
    "select": "LongformerForCandidateSelection",
    "multi-hop": "LongformerForMultiHopAnswers",
    "answer": "LongformerForQuestionAnswering",
    "summarize": "LEDForConditionalGeneration",
}
NO_TEXTS = {
    "missing": [None, math.nan],
    "not a text": [7, 1.5, True, ["a", "list"], {"a": "dict"}],
    "is empty": ["", " \n\t"],
    "not valid Unicode": ["a \ud800 b"],
}
Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(params=ABILITIES)
def served(
    request: pytest.FixtureRequest, tmp_path: Path, test_data: Path, created_run: Run, prepared: PreparedData
) -> tuple[Ask, dict[str, str]]:
    """Returns a function that asks a served model of a task, and a record that it can answer."""
    ability, folder = request.param, tmp_path / "model"
    if ability in ARCHITECTURES:
        tokens = {"select": CANDIDATE_TOKENS, "multi-hop": HOP_TOKENS}.get(ability, ())
        changes = {"coreference": {"head_size": 8}} if ability == "cluster" else {}
        make_model(folder, test_data, ARCHITECTURES[ability], added_tokens=tokens, **changes)
    else:
        finish_phase(created_run, 0, prepared)
        folder = created_run.result_directory(0) / "model"
    model = ServedModel()
    model.open(folder, {"task": ability})

    def ask(*records: dict[str, Any], parameters: Mapping[str, Any] = ABILITIES[ability].quick) -> list[dict[str, Any]]:
        # In a table a column that one record lacks is NaN in it.
        answers = model.predict(None, pandas.DataFrame(list(records), dtype=object), dict(parameters))
        json.dumps(answers.to_dict("records"), allow_nan=False)
        return answers.to_dict("records")

    return ask, example_of(folder, ability)


@pytest.mark.parametrize(
    "served", [name for name in ABILITIES if name not in ("choose", "select", "multi-hop")], indirect=True
)
def test_a_record_without_its_texts_is_refused_by_its_number_and_the_others_answered_as_before(
    served: tuple[Ask, dict[str, str]],
) -> None:
    ask, example = served
    first = ask(example)
    for name in example:
        bad = [(value, sentence) for sentence, values in NO_TEXTS.items() for value in values]
        with pytest.raises(MlflowException) as refusal:
            ask(example, *({**example, name: value} for value, _ in bad))
        assert refusal.value.get_http_status_code() == 400
        lines = refusal.value.message.splitlines()
        assert len(lines) == len(bad)
        for number, (line, (_, sentence)) in enumerate(zip(lines, bad, strict=True), 2):
            assert line.startswith(f"row {number} of {len(bad) + 1}: the {name} ")
            assert sentence in line
        with pytest.raises(MlflowException, match=f"row 1 of 1: the {name} is missing"):
            ask({other: text for other, text in example.items() if other != name} | {"other": "column"})
    assert ask(example | {"other": "column"}) == first


def test_odd_texts_are_answered_or_refused_and_leave_nothing_behind(served: tuple[Ask, dict[str, str]]) -> None:
    ask, example = served
    first = ask(example)
    for odd in ("a", "\x00\x07\x1b", "\u200b\ufeff", "e\u0301 \U0001f9ec", "word " * 600):
        for name in example:
            with suppress(MlflowException):
                ask(example | {name: odd})
            assert ask(example) == first


@pytest.mark.parametrize(
    ("served", "parameters", "sentence"),
    [
        ("answer", {"top": 0}, "top must be at least 1, got 0"),
        ("summarize", {"num_beams": 65}, "num_beams must be from 1 to 64, got 65"),
        ("summarize", {"max_new_tokens": -1}, "max_new_tokens must be at least 1, got -1"),
        ("summarize", {"max_new_tokens": 5000}, "max_new_tokens must be at most 64"),
        ("characters", {"new_characters": 32_769}, "new_characters must be from 0 to 32,768, got 32,769"),
        ("characters", {"new_characters": 1, "temperature": math.nan}, "temperature must be at least 0, got nan"),
    ],
    indirect=["served"],
)
def test_parameters_beyond_their_limits_are_refused(
    served: tuple[Ask, dict[str, str]], parameters: dict[str, Any], sentence: str
) -> None:
    ask, example = served
    with pytest.raises(MlflowException) as refusal:
        ask(example, parameters=parameters)
    assert refusal.value.message.startswith(f"row 1 of 1: {sentence}")


@pytest.mark.slow
def test_a_megabyte_is_answered_or_refused_in_little_memory(served: tuple[Ask, dict[str, str]]) -> None:
    ask, example = served
    first, before = ask(example), peak_memory()
    for unit in ("word ", "a", "x\n", "\x00"):
        for name in example:
            with suppress(MlflowException):
                ask(example | {name: (unit * 1_000_000)[:1_000_000]})
    assert peak_memory() - before < 2**30
    assert ask(example) == first


@pytest.mark.slow
def test_a_character_model_scores_texts_up_to_a_limit(created_run: Run, prepared: PreparedData) -> None:
    finish_phase(created_run, 0, prepared)
    answer = open_model(
        created_run.result_directory(0) / "model", "characters", sequence_length=64, stride=64, batch_size=64
    )
    assert answer({"text": "a" * LONGEST_SCORED}, {})["bits_per_character"] > 0
    with pytest.raises(LongformerError, match=r"has 32,769 bytes, at most 32,768 are scored: give it in parts"):
        answer({"text": "a" * (LONGEST_SCORED + 1)}, {})


def test_mentions_are_clustered_in_little_memory_in_texts_up_to_a_limit(tmp_path: Path, test_data: Path) -> None:
    make_model(tmp_path, test_data, "LongformerForCoreference", coreference={"head_size": 8, "max_spans": 100})
    answer = open_model(tmp_path, "cluster")
    text = ("The cells were held at body warmth. " * 8000)[:LONGEST_CLUSTERED]
    assert answer({"text": text[:10_000]}, {}).keys() == {"clusters"}
    before = peak_memory()
    answer({"text": text}, {})
    assert peak_memory() - before < 2**29
    with pytest.raises(LongformerError, match=r"has 262,145 characters, at most 262,144 are read .*: give it in parts"):
        answer({"text": text + "a"}, {})


@pytest.fixture
def reader(tmp_path: Path, test_data: Path) -> Predictor:
    make_model(tmp_path, test_data, "LongformerForQuestionAnswering")
    return Predictor.load(tmp_path, "answer")


def test_a_short_text_has_fewer_answers(reader: Predictor) -> None:
    assert [each.text for each in reader.answer("Who?", "Me", top=5).answers] == ["Me"]
    two = reader.answer("Who?", "Me too", top=5).answers
    assert sorted(each.text for each in two) == ["Me", "Me too", "too"]
    assert all(math.isfinite(each.score) for each in two)


@pytest.mark.parametrize("count", [252, 253, 254, 600])
def test_a_question_of_about_half_the_length_of_the_model_changes_no_later_answer(
    reader: Predictor, count: int
) -> None:
    question, text, long = "why" + " why" * (count - 1), "The cells.", "The cells were held at body warmth. " * 200
    before = reader.answer("What?", text, top=2), reader.answer("What?", long, top=2)
    if count <= 253:  # four tokens part them; the model reads 512
        assert reader.answer(question, text, top=1)
    else:
        with pytest.raises(
            LongformerError, match=f"the question has {count} tokens, but 253 are read beside a context"
        ):
            reader.answer(question, text, top=1)
    assert (reader.answer("What?", text, top=2), reader.answer("What?", long, top=2)) == before


def test_a_mask_beyond_the_reach_of_the_model_is_called_so(tmp_path: Path, test_data: Path) -> None:
    make_model(tmp_path, test_data, "LongformerForMaskedLM")
    predictor = Predictor.load(tmp_path, "fill-mask")
    assert len(predictor.fill_mask("A <mask> is read." + " word" * 600, top=1)) == 1
    with pytest.raises(LongformerError, match="a mask is token 602 of the text, the model reads 512"):
        predictor.fill_mask("word" + " word" * 599 + " <mask>", top=1)


def test_the_text_is_cut_and_the_query_only_at_half_of_what_the_model_reads(tmp_path: Path, test_data: Path) -> None:
    make_model(tmp_path, test_data, "LEDForConditionalGeneration")
    predictor = Predictor.load(tmp_path, "summarize")
    long = "The cells were held at body warmth. " * 200
    written = [predictor.summarize(text, query="What? Why?", max_new_tokens=8) for text in (long, long + "More.")]
    assert written[0] == written[1]
    asked = [predictor.summarize("A text.", query=query, max_new_tokens=8) for query in (long, long + "Why?")]
    assert asked[0] == asked[1]
    with pytest.raises(LongformerError, match="the query is not a text but of the type list"):
        predictor.summarize("A text.", query=["What?"])  # type: ignore[arg-type]
