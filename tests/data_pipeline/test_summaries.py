"""Documents with summaries: every published layout is read, kept in shards, and comes back as it was."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.loading.batches import Batch, Batches
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.order import permutation
from data_pipeline.sampling.summaries import SummaryExample, SummaryFormat, SummarySequences, source_tokens
from data_pipeline.shards.prepared import PreparedData, Split
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.summaries import DOCUMENT, IDENTIFIER, QUERY, SUMMARY, summaries
from data_pipeline.tokenizers.subword import TextTokenizer
from longformer.inference.queries import longest_query
from longformer.interop.tokenizer import read_tokenizer, tokenizer_content
from tests.data_pipeline.random_texts import random_texts

GLOBAL_BATCH = 12
FIELDS = "document=text,summary=abstract,query=question,identifier=name"


def read_all(source: Path, layout: str, quarantine: Quarantine | None = None) -> list[RawExample]:
    corpus = summaries(source, layout)
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


@pytest.mark.parametrize(
    ("folder", "layout", "counts", "written"),
    [
        ("sumpubmed", "sumpubmed", (800, 100, 100), 1),
        ("arxiv_pubmed_samples", "scientific_papers", (4, 4, 4), 1),
        ("qmsum", "qmsum", (1257, 272, 281), 1),
        ("squality", "squality", (250, 125, 260), 4),
    ],
)
def test_every_published_layout_is_read_whole_in_its_own_splits(
    folder: str, layout: str, counts: tuple[int, ...], written: int, test_data: Path
) -> None:
    samples = read_all(test_data / folder, layout)
    assert Counter(sample.split for sample in samples) == dict(
        zip(("train", "validation", "test"), counts, strict=True)
    )
    assert {sum(name.startswith(SUMMARY) for name in sample.texts) for sample in samples} == {written}
    assert len({sample.fields[IDENTIFIER] for sample in samples}) == len(samples), "identifiers tell the samples apart"
    assert all((QUERY in sample.texts) is (layout in ("qmsum", "squality")) for sample in samples)
    assert all(text.strip() for sample in samples for text in sample.texts.values())


def test_an_abstract_of_arxiv_loses_its_marks_and_keeps_its_sentences_apart(test_data: Path) -> None:
    (sample, *_) = read_all(test_data / "arxiv_pubmed_samples" / "arxiv_train.txt", "scientific_papers")
    record = json.loads((test_data / "arxiv_pubmed_samples" / "arxiv_train.txt").read_text().splitlines()[0])
    assert sample.fields[IDENTIFIER] == record["article_id"]
    assert str(sample.texts[DOCUMENT]).split("\n") == record["article_text"]
    assert [f"<S> {line} </S>" for line in str(sample.texts[f"{SUMMARY}0"]).split("\n")] == record["abstract_text"]
    assert sample.split is None, "a single file says nothing of splits"


@pytest.mark.parametrize(
    ("layout", "line", "reason"),
    [
        (FIELDS, '{"text": "a", "abstract": "b"}', "it has no field name, only text, abstract"),
        (FIELDS, '{"name": 1, "text": 2, "abstract": "b", "question": ""}', "found int"),
        (FIELDS, '{"name": 1, "text": " ", "abstract": "b", "question": ""}', "the document is empty"),
        (FIELDS, '{"name": 1, "text": "a", "abstract": [], "question": ""}', "a summary is missing or empty"),
        (FIELDS, "[1", "it is no JSON"),
        ("qmsum", '{"meeting_transcripts": [], "general_query_list": []}', "it has no 'specific_query_list'"),
        ("squality", '"text"', "it is no object but str"),
        ("scientific_papers", '{"article_id": "1", "article_text": [], "abstract_text": ["<S> a </S>"]}', "is empty"),
    ],
)
def test_a_line_that_is_something_else_is_named_and_skipped(
    layout: str, line: str, reason: str, tmp_path: Path
) -> None:
    source = tmp_path / "lines.jsonl"
    source.write_text(line + "\n")
    quarantine = Quarantine(1)
    assert read_all(source, layout, quarantine) == []
    ((name, why),) = quarantine.items()
    assert name == f"{source}:1"
    assert reason in why
    with pytest.raises(DataError, match=r"lines\.jsonl:1 is damaged"):
        read_all(source, layout)


@pytest.mark.parametrize("layout", ["sumpubmet", "document=text", "document=a,summary=b,title=c", "a=b=c"])
def test_an_unknown_layout_is_refused_with_the_known_ones(layout: str, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"is no layout of summaries: choose one of scientific_papers, .*document=NAME"):
        summaries(tmp_path, layout)


def test_folders_and_files_that_name_a_split_are_the_whole_corpus(tmp_path: Path) -> None:
    for name in ("train/a.jsonl", "train/b.jsonl", "dev.jsonl", "the_test_part.jsonl", "README.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"document": name, "summary": "s"}) + "\n")
    found = read_all(tmp_path, "document=document,summary=summary")
    assert {sample.texts[DOCUMENT]: sample.split for sample in found} == {
        "train/a.jsonl": "train",
        "train/b.jsonl": "train",
        "dev.jsonl": "validation",
        "the_test_part.jsonl": "test",
    }


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 120 documents of which every third has a query and every fifth two summaries."""
    path = tmp_path_factory.mktemp("summaries") / "lines.jsonl"
    texts = random_texts(360, seed=3)
    with path.open("w") as file:
        for number, (text, one, other) in enumerate(zip(texts[::3], texts[1::3], texts[2::3], strict=True)):
            record = {
                "name": f"n{number}",
                "text": text or "empty",
                "abstract": [one or "none", "other " + other] if number % 5 == 0 else one or "none",
                "question": "what of it?" if number % 3 == 0 else "",
            }
            file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture(scope="module")
def prepared(lines: Path, small_tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The file prepared, in several shards."""
    return prepare(
        summaries(lines, FIELDS),
        tokenizer=small_tokenizer,
        output=tmp_path_factory.mktemp("prepared") / "summaries",
        task_map=in_this_process,
        shard_characters=20_000,
    )


def texts_of(sample: SummaryExample, decode: Callable[[np.ndarray], str]) -> tuple[str, ...]:
    return (sample.identifier, *map(decode, (sample.query, sample.document, *sample.summaries)))


def read_samples(split: Split) -> list[SummaryExample]:
    return [SummaryExample.of(example) for example in split.examples()]


def test_what_was_prepared_comes_back_text_for_text(lines: Path, prepared: PreparedData) -> None:
    assert len(prepared.manifest.splits["train"]) > 2
    decode = prepared.tokenizer.decode
    found = {texts_of(each, decode) for name in prepared.manifest.splits for each in read_samples(prepared.split(name))}
    assert found == {
        (
            sample.fields[IDENTIFIER],
            sample.texts.get(QUERY, ""),
            sample.texts[DOCUMENT],
            *(text for name, text in sample.texts.items() if name.startswith(SUMMARY)),
        )
        for sample in read_all(lines, FIELDS)
    }


def test_an_interrupted_preparation_goes_on_and_a_finished_one_is_taken_as_it_is(
    lines: Path, prepared: PreparedData, small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    done = 0

    def stopped(function: Callable, tasks: object) -> object:
        nonlocal done
        for task in tasks:  # type: ignore[attr-defined]
            if done == 2:
                raise KeyboardInterrupt
            done += 1
            yield function(task)

    options = {"tokenizer": small_tokenizer, "output": tmp_path / "out", "shard_characters": 20_000}
    with pytest.raises(KeyboardInterrupt):
        prepare(summaries(lines, FIELDS), task_map=stopped, **options)  # type: ignore[arg-type]
    again = prepare(summaries(lines, FIELDS), task_map=in_this_process, **options)  # type: ignore[arg-type]
    assert again.fingerprint == prepared.fingerprint
    taken = prepare(summaries(lines, FIELDS), task_map=stopped, **options)  # type: ignore[arg-type]
    assert taken.fingerprint == prepared.fingerprint
    with pytest.raises(
        DataError,
        match=r"already holds summaries \(layout .*\), not summaries \(layout document=text,summary=abstract\)",
    ):
        prepare(summaries(lines, "document=text,summary=abstract"), **options)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(query=st.integers(0, 40), document=st.integers(1, 60), length=st.integers(16, 80))
def test_the_encoder_reads_begin_query_and_document_and_the_query_is_global(
    query: int, document: int, length: int, prepared: PreparedData
) -> None:
    special = prepared.manifest.tokenizer.special_tokens
    tokens, global_tokens = source_tokens(
        np.arange(200, 200 + document),
        np.arange(100, 100 + query),
        prepared.tokenizer.format,
        length=length,
        query_length=longest_query(length),
    )
    begin, end = special.begin, special.end
    asked = list(range(100, 100 + query))[: length // 2 - 3]
    whole = [begin, *asked, end, end] if query else [begin]
    whole += [*range(200, 200 + document)]
    assert tokens.tolist() == [*whole[: length - 1], end]
    assert tokens[:global_tokens].tolist() == [begin, *asked]


@pytest.mark.parametrize("query", ["", "what of the cells?"])
def test_what_is_read_in_training_is_what_the_tokenizer_writes_in_use(query: str, test_data: Path) -> None:
    folder = test_data / "tokenizer_gpt2_roberta"
    document = "The cells <mask> bind\nthe receptor."
    ours = TextTokenizer(tokenizer_content(folder))
    asked, text = (tokens.astype(np.int64) for tokens in ours.encode_batch([query, document]))
    tokens, global_tokens = source_tokens(text, asked, ours.format, length=64, query_length=29)
    theirs = read_tokenizer(folder)
    encoding = theirs.encode(query, document) if query else theirs.encode(document)
    assert tokens.tolist() == encoding.ids
    assert global_tokens == 1 + (encoding.sequence_ids.count(0) if query else 0)


def sequences_of(prepared: PreparedData, **changes: object) -> SummarySequences:
    form = SummaryFormat.of(prepared.tokenizer, begin_is_learned=bool(changes.pop("begin_is_learned", True)))
    options = {"form": form, "source_length": 64, "query_length": 29, "target_length": 32, "seed": 1, **changes}
    return SummarySequences(prepared.split("train"), **options)  # type: ignore[arg-type]


def test_both_conventions_of_teacher_forcing_learn_the_same_text(prepared: PreparedData) -> None:
    special = prepared.manifest.tokenizer.special_tokens
    with_begin, without = sequences_of(prepared, target_length=33), sequences_of(prepared, begin_is_learned=False)
    for position in range(with_begin.per_epoch):
        labels, shorter = with_begin.sequence(position)["labels"], without.sequence(position)["labels"]
        assert labels.tolist() == [special.begin, *shorter]
        assert shorter[-1] == special.end
        assert len(shorter) <= 32
    assert with_begin.fingerprint != without.fingerprint


def test_a_document_with_several_summaries_is_learned_with_another_one_in_every_epoch(prepared: PreparedData) -> None:
    sequences = sequences_of(prepared, target_length=10_000, source_length=10_000, query_length=10_000)
    by_document: dict[bytes, list[bytes]] = {}
    for position in range(2 * sequences.per_epoch):
        sequence = sequences.sequence(position)
        by_document.setdefault(sequence["input_ids"].tobytes(), []).append(sequence["labels"].tobytes())
    several = {
        source_tokens(sample.document, sample.query, prepared.tokenizer.format, length=10_000, query_length=10_000)[
            0
        ].tobytes()
        for sample in read_samples(prepared.split("train"))
        if len(sample.summaries) == 2
    }
    assert several
    assert {key for key, labels in by_document.items() if len(set(labels)) == 2} == several


def global_batches(prepared: PreparedData, steps: int, state: dict | None = None, **options: int) -> tuple[list, dict]:
    """Return what all ranks together train on in each step, sequence by sequence, and the state behind it."""
    world_size = options.pop("world_size", 1)
    micro = options.pop("micro_batch_size", 1)
    by_rank = []
    for rank in range(world_size):
        batches = Batches(
            sequences_of(prepared), global_batch_size=GLOBAL_BATCH, micro_batch_size=micro, rank=rank,
            world_size=world_size, bucket_batches=2, **options,
        )  # fmt: skip
        if state:
            batches.load_state_dict(state)
        by_rank.append(list(islice(batches, steps * GLOBAL_BATCH // world_size // micro)))
        after = batches.state_dict()
    share = GLOBAL_BATCH // world_size // micro
    return [
        [
            sequence
            for rank in by_rank
            for batch in rank[step * share : (step + 1) * share]
            for sequence in unpadded(batch)
        ]
        for step in range(steps)
    ], after


def unpadded(batch: Batch) -> list[tuple[list[int], int, list[int]]]:
    return [
        (ids[mask == 1].tolist(), int(is_global.sum()), labels[labels != IGNORED].tolist())
        for ids, mask, is_global, labels in zip(
            batch["input_ids"],
            batch["attention_mask"],
            batch["global_attention_mask"],
            batch["labels"],
            strict=True,
        )
    ]


@pytest.mark.parametrize(("world_size", "workers"), [(2, 0), (3, 1), (4, 0)])
def test_global_batches_are_the_same_for_every_number_of_ranks_and_workers_across_resume(
    world_size: int, workers: int, prepared: PreparedData
) -> None:
    straight, _ = global_batches(prepared, 5)
    before, state = global_batches(prepared, 2, world_size=world_size, workers=workers)
    after, _ = global_batches(prepared, 3, state, world_size=6 - world_size, micro_batch_size=1 + world_size % 2)
    assert before + after == straight


def test_gathering_by_length_pads_less(prepared: PreparedData) -> None:
    def padding(bucket_batches: int) -> int:
        batches = Batches(
            sequences_of(prepared, source_length=2_000), global_batch_size=8, micro_batch_size=8, rank=0,
            world_size=1, bucket_batches=bucket_batches,
        )  # fmt: skip
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in islice(batches, 12))

    assert padding(12) < padding(1) * 0.5


def test_a_damaged_sample_is_an_empty_document_from_which_nothing_is_learned(
    prepared: PreparedData, tmp_path: Path
) -> None:
    sequences = sequences_of(prepared)
    split = prepared.split("train", quarantine=Quarantine(1))
    first = int(permutation(len(split.shards), (1, "shards", 0))[0])
    split._shard(first).index.members["checksum"][0] += np.uint64(1)
    form = SummaryFormat.of(prepared.tokenizer)
    damaged = SummarySequences(split, form=form, source_length=64, query_length=29, target_length=32, seed=1)
    changed = []
    for position in range(sequences.per_epoch):
        sequence, other = sequences.sequence(position), damaged.sequence(position)
        if sequence["input_ids"].tobytes() != other["input_ids"].tobytes():
            changed.append(other)
    ((sequence),) = changed
    special = prepared.manifest.tokenizer.special_tokens
    assert sequence["input_ids"].tolist() == [special.begin, special.end]
    assert sequence["labels"].tolist() == [IGNORED]
    assert sequence["attention_mask"].tolist() == [1, 1]


def test_plain_documents_are_refused(documents_once: PreparedData) -> None:
    with pytest.raises(DataError, match="holds no summaries: make them with longformer data prepare summaries"):
        sequences_of(documents_once)
