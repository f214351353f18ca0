"""Documents with summaries: every published layout is read, kept in shards, and comes back as it was."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.loading.document_loader import DocumentBatches
from data_pipeline.loading.rank_loader import Batch
from data_pipeline.prepare.documents import prepare_corpus
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.sampling.order import permutation
from data_pipeline.sampling.summaries import SummaryRows
from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.sources.corpus_types import Sample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.summaries import summary_corpus
from data_pipeline.summary_samples import SummarySample, read_samples, source_tokens
from data_pipeline.tokenizers.subword import TextTokenizer
from longformer.interop.tokenizer import read_tokenizer
from tests.data_pipeline.random_texts import random_texts

GLOBAL_BATCH = 12
FIELDS = "document=text,summary=abstract,query=question,identifier=name"


def read_all(source: Path, layout: str, quarantine: Quarantine | None = None) -> list[Sample]:
    corpus = summary_corpus(source, layout)
    return list(corpus.read(DocumentReader(corpus.files), quarantine or Quarantine(0)))


@pytest.mark.parametrize(
    ("folder", "layout", "counts", "summaries"),
    [
        ("sumpubmed", "sumpubmed", (800, 100, 100), 1),
        ("arxiv_pubmed_samples", "scientific_papers", (4, 4, 4), 1),
        ("qmsum", "qmsum", (1257, 272, 281), 1),
        ("squality", "squality", (250, 125, 260), 4),
    ],
)
def test_every_published_layout_is_read_whole_in_its_own_splits(
    folder: str, layout: str, counts: tuple[int, ...], summaries: int, test_data: Path
) -> None:
    samples = read_all(test_data / folder, layout)
    assert Counter(sample.split for sample in samples) == dict(
        zip(("train", "validation", "test"), counts, strict=True)
    )
    assert {len(sample.texts) - 3 for sample in samples} == {summaries}
    assert len({sample.texts[0] for sample in samples}) == len(samples), "identifiers tell the samples apart"
    assert all(bool(sample.texts[1]) is (layout in ("qmsum", "squality")) for sample in samples)
    assert all(text.strip() for sample in samples for text in sample.texts[2:])


def test_an_abstract_of_arxiv_loses_its_marks_and_keeps_its_sentences_apart(test_data: Path) -> None:
    (sample, *_) = read_all(test_data / "arxiv_pubmed_samples" / "arxiv_train.txt", "scientific_papers")
    record = json.loads((test_data / "arxiv_pubmed_samples" / "arxiv_train.txt").read_text().splitlines()[0])
    assert sample.texts[0] == record["article_id"]
    assert sample.texts[2].split("\n") == record["article_text"]
    assert [f"<S> {line} </S>" for line in sample.texts[3].split("\n")] == record["abstract_text"]
    assert sample.split is None, "a single file says nothing of splits"


@pytest.mark.parametrize(
    ("layout", "line", "reason"),
    [
        (FIELDS, '{"text": "a", "abstract": "b"}', "KeyError: 'name'"),
        (FIELDS, '{"name": 1, "text": 2, "abstract": "b", "question": ""}', "found int"),
        (FIELDS, '{"name": 1, "text": " ", "abstract": "b", "question": ""}', "the document is empty"),
        (FIELDS, '{"name": 1, "text": "a", "abstract": [], "question": ""}', "a summary is missing or empty"),
        (FIELDS, "[1", "JSONDecodeError"),
        ("qmsum", '{"meeting_transcripts": [], "general_query_list": []}', "KeyError"),
        ("squality", '"text"', "TypeError"),
        ("scientific_papers", '{"article_id": "1", "article_text": [], "abstract_text": ["<S> a </S>"]}', "is empty"),
    ],
)
def test_a_line_that_is_something_else_is_named_and_left_out(
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
        summary_corpus(tmp_path, layout)


def test_folders_and_files_that_name_a_split_are_the_whole_corpus(tmp_path: Path) -> None:
    for name in ("train/a.jsonl", "train/b.jsonl", "dev.jsonl", "the_test_part.jsonl", "README.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"document": name, "summary": "s"}) + "\n")
    found = read_all(tmp_path, "document=document,summary=summary")
    assert {sample.texts[2]: sample.split for sample in found} == {
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
def prepared(lines: Path, small_tokenizer: TextTokenizer, tmp_path_factory: pytest.TempPathFactory) -> DocumentData:
    """The file prepared, in several shards."""
    return prepare_corpus(
        summary_corpus(lines, FIELDS),
        tokenizer=small_tokenizer,
        output=tmp_path_factory.mktemp("prepared") / "summaries",
        task_map=in_this_process,
        shard_characters=20_000,
    )


def texts_of(sample: SummarySample, decode: Callable[[np.ndarray], str]) -> tuple[str, ...]:
    return tuple(map(decode, (sample.identifier, sample.query, sample.document, *sample.summaries)))


def test_what_was_prepared_comes_back_text_for_text(lines: Path, prepared: DocumentData) -> None:
    assert len(prepared.manifest.splits["train"]) > 2
    decode = prepared.tokenizer().decode
    found = {texts_of(each, decode) for name in prepared.manifest.splits for each in read_samples(prepared.split(name))}
    assert found == {sample.texts for sample in read_all(lines, FIELDS)}


def test_an_interrupted_preparation_goes_on_and_a_finished_one_is_taken_as_it_is(
    lines: Path, prepared: DocumentData, small_tokenizer: TextTokenizer, tmp_path: Path
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
        prepare_corpus(summary_corpus(lines, FIELDS), task_map=stopped, **options)  # type: ignore[arg-type]
    again = prepare_corpus(summary_corpus(lines, FIELDS), task_map=in_this_process, **options)  # type: ignore[arg-type]
    assert again.fingerprint == prepared.fingerprint
    taken = prepare_corpus(summary_corpus(lines, FIELDS), task_map=stopped, **options)  # type: ignore[arg-type]
    assert taken.fingerprint == prepared.fingerprint
    with pytest.raises(DataError, match="already holds documents of another tokenizer or field"):
        prepare_corpus(summary_corpus(lines, "document=text,summary=abstract"), **options)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(query=st.integers(0, 40), document=st.integers(1, 60), length=st.integers(16, 80))
def test_the_encoder_reads_begin_query_and_document_and_the_query_is_global(
    query: int, document: int, length: int, prepared: DocumentData
) -> None:
    special = prepared.manifest.tokenizer.special
    sample = SummarySample(np.arange(0), np.arange(100, 100 + query), np.arange(200, 200 + document), ())
    tokens, global_tokens = source_tokens(sample, special, length=length)
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
    ours = TextTokenizer.open(folder)
    asked, text = (tokens.astype(np.int64) for tokens in ours.encode([query, document]))
    tokens, global_tokens = source_tokens(SummarySample(asked[:0], asked, text, ()), ours.special, length=64)
    theirs = read_tokenizer(folder)
    theirs.encode_special_tokens = True
    encoding = theirs.encode(query, document) if query else theirs.encode(document)
    assert tokens.tolist() == encoding.ids
    assert global_tokens == 1 + (encoding.sequence_ids.count(0) if query else 0)


def rows_of(prepared: DocumentData, **changes: object) -> SummaryRows:
    options = {"source_length": 64, "target_length": 32, "seed": 1, **changes}
    return SummaryRows(prepared.split("train"), **options)  # type: ignore[arg-type]


def test_both_conventions_of_teacher_forcing_learn_the_same_text(prepared: DocumentData) -> None:
    special = prepared.manifest.tokenizer.special
    with_begin, without = rows_of(prepared, target_length=33), rows_of(prepared, begin_is_learned=False)
    for position in range(with_begin.per_epoch):
        labels, shorter = with_begin.row(position).labels, without.row(position).labels
        assert labels.tolist() == [special.begin, *shorter]
        assert shorter[-1] == special.end
        assert len(shorter) <= 32
    assert with_begin.fingerprint != without.fingerprint


def test_a_document_with_several_summaries_is_learned_with_another_one_in_every_epoch(prepared: DocumentData) -> None:
    rows = rows_of(prepared, target_length=10_000, source_length=10_000)
    by_document: dict[bytes, list[bytes]] = {}
    for position in range(2 * rows.per_epoch):
        row = rows.row(position)
        by_document.setdefault(row.tokens.tobytes(), []).append(row.labels.tobytes())
    several = {
        source_tokens(sample, rows.tokenizer.special, length=10_000)[0].tobytes()
        for sample in read_samples(prepared.split("train"))
        if len(sample.summaries) == 2
    }
    assert several
    assert {key for key, labels in by_document.items() if len(set(labels)) == 2} == several


def global_batches(prepared: DocumentData, steps: int, state: dict | None = None, **options: int) -> tuple[list, dict]:
    """Return what all ranks together train on in each step, row by row, and the state behind it."""
    world_size = options.pop("world_size", 1)
    micro = options.pop("micro_batch_size", 1)
    by_rank = []
    for rank in range(world_size):
        batches = DocumentBatches(
            rows_of(prepared), global_batch_size=GLOBAL_BATCH, micro_batch_size=micro, rank=rank,
            world_size=world_size, bucket_batches=2, **options,
        )  # fmt: skip
        if state:
            batches.load_state_dict(state)
        by_rank.append(list(islice(batches, steps * GLOBAL_BATCH // world_size // micro)))
        after = batches.state_dict()
    share = GLOBAL_BATCH // world_size // micro
    return [
        [row for rank in by_rank for batch in rank[step * share : (step + 1) * share] for row in unpadded(batch)]
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
    world_size: int, workers: int, prepared: DocumentData
) -> None:
    straight, _ = global_batches(prepared, 5)
    before, state = global_batches(prepared, 2, world_size=world_size, workers=workers)
    after, _ = global_batches(prepared, 3, state, world_size=6 - world_size, micro_batch_size=1 + world_size % 2)
    assert before + after == straight


def test_gathering_by_length_pads_less(prepared: DocumentData) -> None:
    def padding(bucket_batches: int) -> int:
        batches = DocumentBatches(
            rows_of(prepared, source_length=2_000), global_batch_size=8, micro_batch_size=8, rank=0,
            world_size=1, bucket_batches=bucket_batches,
        )  # fmt: skip
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in islice(batches, 12))

    # Not as little as could be: summaries, here as long as documents, count in the length that rows are gathered by.
    assert padding(12) < padding(1) * 0.8


def test_a_damaged_sample_is_an_empty_document_from_which_nothing_is_learned(
    prepared: DocumentData, tmp_path: Path
) -> None:
    rows = rows_of(prepared)
    split = prepared.split("train", quarantine=Quarantine(1))
    first = int(permutation(len(split.shards), (1, "shards", 0))[0])
    split._shard(first).index["checksum"][0] += np.uint64(1)
    damaged = SummaryRows(split, source_length=64, target_length=32, seed=1)
    changed = []
    for position in range(rows.per_epoch):
        row, other = rows.row(position), damaged.row(position)
        if row.tokens.tobytes() != other.tokens.tobytes():
            changed.append(other)
    ((row),) = changed
    special = prepared.manifest.tokenizer.special
    assert row.tokens.tolist() == [special.begin, special.end]
    assert row.labels.tolist() == [IGNORED]
    assert torch.equal(torch.from_numpy(row.columns()["attention_mask"]), torch.ones(2, dtype=torch.int64))


def test_plain_documents_are_refused(documents_once: DocumentData) -> None:
    with pytest.raises(DataError, match="holds no summaries: make them with longformer data prepare summaries"):
        rows_of(documents_once)
