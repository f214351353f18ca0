"""Questions about texts: read from every form, their answers marked exactly where they stand whatever the tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.questions import TextInputs
from data_pipeline.sampling.spans import SpanSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.questions import places_of, questions
from data_pipeline.tokenizers.subword import TextTokenizer
from longformer.inference.answering import text_of
from longformer.interop.tokenizer import tokenizer_content
from tests.interop.tokenizer_folders import SCRIPTS, byte_level, word_pieces

FIELDS = {"context": "context", "question": "question", "answers": "answers", "identifier": "id"}
GOOD = {"id": "1", "context": "Ann met Bob. Bob ran.", "question": "Who ran?", "answers": ["Bob"]}


def read_all(source: Path, quarantine: Quarantine | None = None, **named: Any) -> list[RawExample]:
    corpus = questions(source, **(FIELDS | named))
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


def write(folder: Path, *records: Any) -> Path:
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


@pytest.mark.parametrize(
    ("answers", "texts", "spans"),
    [
        ("Bob", ["Bob"], [(8, 11), (13, 16)]),
        (["Ann", "Bob"], ["Ann", "Bob"], [(0, 3), (8, 11), (13, 16)]),
        ([{"text": "Bob", "answer_start": 13}], ["Bob"], [(13, 16)]),
        ({"text": ["Bob", "Bob ran"], "answer_start": [13, 13]}, ["Bob", "Bob ran"], [(13, 16), (13, 20)]),
        ('[{"text": "Bob", "answer_start": 13}]', ["Bob"], [(13, 16)]),
        (["Bob", "Robert"], ["Bob", "Robert"], [(8, 11), (13, 16)]),
        ([], [], []),
        ({"text": [], "answer_start": []}, [], []),
    ],
)
def test_answers_are_marked_where_the_source_says_or_wherever_they_stand(
    tmp_path: Path, answers: Any, texts: list[str], spans: list[tuple[int, int]]
) -> None:
    (found,) = read_all(write(tmp_path, {**GOOD, "answers": answers}))
    assert (found.fields["answers"], found.fields["text_spans"]) == (texts, spans)


def test_squad_is_read_as_it_is_published_and_names_of_files_tell_the_splits(tmp_path: Path) -> None:
    asked = [
        {"id": "a", "question": "Who ran?", "answers": [{"text": "Bob", "answer_start": 13}], "is_impossible": False},
        {
            "id": "b",
            "question": "Who sat?",
            "answers": [],
            "plausible_answers": [{"text": "Ann"}],
            "is_impossible": True,
        },
        {"id": "c", "question": "Who met?", "answers": [{"text": "Bob", "answer_start": 3}]},
    ]
    article = {"title": "A", "paragraphs": [{"context": GOOD["context"], "qas": asked}]}
    (tmp_path / "dev-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": [article]}))
    quarantine = Quarantine(1)
    first, second = read_all(tmp_path, quarantine)
    assert (first.split, first.fields["id"], first.fields["text_spans"]) == ("validation", "a", [(13, 16)])
    assert (second.fields["id"], second.fields["answers"]) == ("b", [])
    ((name, reason),) = quarantine.items()
    assert name.endswith("dev-v2.0.json:1 question c")
    assert reason == "the answer 'Bob' does not stand at character 3 of the context: there stands ' me'"


def test_the_real_sample_of_musique_is_read_through_its_paragraphs(test_data: Path) -> None:
    source = test_data / "musique_100" / "musique_train_100.json.xz"
    named = {"context": "paragraphs.paragraph_text", "answers": ("answer", "answer_aliases")}
    found = read_all(source, **named)
    assert len(found) == 100
    for example in found:
        context, spans = example.fields["context"], example.fields["text_spans"]
        assert spans
        assert {context[start:end] for start, end in spans} <= set(example.fields["answers"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"answers": ["Eve"]}, "the answer 'Eve' does not stand in the context"),
        ({"answers": [""]}, "an answer is empty: write [] where the context has none"),
        ({"answers": None}, "the answers are null: write [] where the context has none"),
        (
            {"answers": [{"text": "Bob", "answer_start": -1}]},
            "answer_start is -1, but it should count characters from 0",
        ),
        ({"answers": {"text": ["Bob"], "answer_start": []}}, "have 1 texts, but not as many numbers in answer_start"),
        ({"answers": [7]}, "an answer is of the type int, but it should be a text"),
        ({"context": " "}, "the context is empty"),
        ({"context": 3}, "the context is of the type int, but it should be a text"),
        ({"question": None}, "the question is missing"),
        ({"id": "0"}, "another question has the same id, 0"),
    ],
)
def test_what_cannot_be_learned_is_named_and_bounded(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    source = write(tmp_path, {**GOOD, "id": 0}, {**GOOD, **record})
    quarantine = Quarantine(1)
    assert len(read_all(source, quarantine)) == 1
    ((name, told),) = quarantine.items()
    assert name.endswith("train.jsonl:2")
    assert reason in told
    with pytest.raises(DataError, match=r"train\.jsonl:2"):
        read_all(source)


def test_an_answer_is_found_as_words_of_its_own_or_within_others_where_it_never_is() -> None:
    assert places_of("1", "In 2012 and 1 (21)") == [(12, 13)]
    assert places_of("京都", "私は京都に住む") == [(2, 4)]
    assert places_of("a.b", "axb a.b") == [(4, 7)]


pieces = st.one_of(
    st.sampled_from([*SCRIPTS.values(), "\t", "  ", " ", "\n", "the", "cells"]),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
)


@pytest.fixture(scope="module", params=["byte_level", "word_pieces"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "byte_level":
        byte_level(folder, tokenizer_class="RobertaTokenizer")
    else:
        word_pieces(folder, tokenizer_class="BertTokenizer")
    return TextTokenizer(tokenizer_content(folder))


@settings(max_examples=150, deadline=None)
@given(before=st.lists(pieces, max_size=6), answer=st.lists(pieces, min_size=1, max_size=3), behind=st.lists(pieces))
def test_the_tokens_of_an_answer_give_it_back_exactly(
    tokenizer: TextTokenizer, before: list[str], answer: list[str], behind: list[str]
) -> None:
    context = "".join([*before, " ", *answer, " ", *behind])
    start = len("".join(before)) + 1
    marked = "".join(answer)
    _, spans = tokenizer.encode_spans(context, [(start, start + len(marked))])
    offsets = tokenizer.offsets(context)
    for first, last in spans:
        text, begin = text_of(context, offsets, first, last)
        assert context[begin : begin + len(text)] == text
        # All of the answer that the tokenizer keeps, and no more than the letters that share a token with its ends.
        inside = [place for place, (left, right) in enumerate(offsets) if left < start + len(marked) and right > start]
        assert (first, last) == (inside[0], inside[-1])
        if offsets[first][0] >= start and offsets[last][1] <= start + len(marked):
            assert text in marked
    if not spans:
        assert all(right <= start or left >= start + len(marked) for left, right in offsets)


def prepared(folder: Path, tokenizer: TextTokenizer, *records: Any) -> PreparedData:
    folder.mkdir(exist_ok=True)
    corpus = questions(write(folder, *records), **FIELDS)
    return prepare(corpus, output=folder / "data", tokenizer=tokenizer, task_map=in_this_process)


def test_every_window_shows_its_answers_and_every_second_epoch_one_that_holds_any(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    words = ["the"] * 60
    words[7] = words[50] = "cells"
    data = prepared(tmp_path, tokenizer, {**GOOD, "context": " ".join(words), "answers": ["cells"]})
    inputs = TextInputs(tokenizer.format, "question", 20)
    split = data.split("train")
    sequences = SpanSequences(split, inputs=inputs, overlap=8, sequence_length=48, seed=3, long_documents="windows")
    shown = set()
    for epoch in range(40):
        found = sequences.sequence(epoch)
        ids = found["input_ids"]
        assert len(ids) == len(found["attention_mask"]) == 48
        texts = {
            tokenizer.decode(ids[first : last + 1]).strip()
            for first, last in zip(found["start_positions"], found["end_positions"], strict=True)
            if first
        }
        assert texts <= {"cells"}
        if epoch % 2 == 0:
            assert texts == {"cells"}
        shown.add(tokenizer.decode(ids))
        # The question and what stands before it are global.
        asked = int(found["global_attention_mask"].sum())
        assert tokenizer.decode(ids[1:asked]).strip().lower().startswith("who ran")
    assert len(shown) >= 3
    nothing = SpanSequences(
        prepared(tmp_path / "none", tokenizer, {**GOOD, "answers": []}).split("train"),
        inputs=inputs, overlap=8, sequence_length=48, seed=3, long_documents="windows",
    ).sequence(0)  # fmt: skip
    assert [nothing[name].tolist() for name in ("start_positions", "end_positions")] == [[0], [0]]
