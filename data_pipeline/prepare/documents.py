"""Prepare documents: corpus -> tokens -> shards with indexes and a manifest, on all cores, resumable after a kill.

The corpus is read once, in order, and cut into runs of documents that become a shard each. Which documents stand in
which shard follows from the corpus alone, so the output is the same for every number of workers and of interruptions.
Every shard is committed by itself: a later start takes over those whose text and tokenizer are the same.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import LocalProcesses, TaskMap
from data_pipeline.sampling.order import sample_at
from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.shards.document_manifest import CorpusRecord, DocumentManifest, TokenizerRecord
from data_pipeline.shards.document_shards import ShardRecord, write_document_shard
from data_pipeline.shards.stream_manifest import is_prepared
from data_pipeline.sources.corpus import text_corpus
from data_pipeline.sources.corpus_types import Corpus, Sample
from data_pipeline.sources.files import DocumentReader, ReportProgress, source_signature
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.splits import SPLITS
from data_pipeline.staging import staged_directory, write_file
from data_pipeline.tokenizers.subword import TextTokenizer

SHARD_CHARACTERS = 1 << 24
QUARANTINE_FILE = "quarantine.jsonl"
_HELD_OUT_EVERY = 20


def prepare_documents(
    *,
    source: Path,
    tokenizer: TextTokenizer,
    output: Path,
    field: str = "text",
    damaged_allowed: int = 0,
    task_map: TaskMap | None = None,
    shard_characters: int = SHARD_CHARACTERS,
    report_progress: ReportProgress | None = None,
) -> DocumentData:
    """Return the prepared documents in `output`, making them first where they are not there yet.

    Args:
        source: a file or folder of text, JSON lines or Parquet (data_pipeline/sources/corpus.py).
        field: where JSON lines and Parquet keep the text.

    The other arguments, and what is raised, are those of `prepare_corpus`.
    """
    return prepare_corpus(
        text_corpus(source, field=field),
        tokenizer=tokenizer,
        output=output,
        damaged_allowed=damaged_allowed,
        task_map=task_map,
        shard_characters=shard_characters,
        report_progress=report_progress,
    )


def prepare_corpus(
    corpus: Corpus,
    *,
    tokenizer: TextTokenizer,
    output: Path,
    damaged_allowed: int = 0,
    task_map: TaskMap | None = None,
    shard_characters: int = SHARD_CHARACTERS,
    report_progress: ReportProgress | None = None,
) -> DocumentData:
    """Return the prepared samples of a corpus in `output`, making them first where they are not there yet.

    Args:
        damaged_allowed: how many samples may be unreadable; they are left out and named in quarantine.jsonl.
        task_map: where the work is done; None: on all cores of this machine.
        shard_characters: a shard is full when its samples have so many characters.
        report_progress: called with (done, total) in bytes of the source as stored.

    Raises:
        DataError: source missing, empty or damaged; `output` holds something else; no space left. Finished shards are
            kept for the next start, except where `output` is something else.
    """
    signature = source_signature(corpus.files)
    samples = _CountedSamples(corpus, DocumentReader(corpus.files, report_progress), damaged_allowed)
    if is_prepared(output):
        existing = DocumentData.open(str(output))
        _check_unchanged(existing, tokenizer, corpus, signature, samples, shard_characters)
        _remove_leftovers(output, existing.manifest)
        return existing
    with staged_directory(output, resumable=True) as staging:
        tokenizer.save(staging / "tokenizer.json")
        tasks = _shard_tasks(samples, staging, tokenizer.sha256, shard_characters)
        splits: dict[str, list[ShardRecord]] = {split: [] for split in SPLITS}
        run = task_map or LocalProcesses(len(os.sched_getaffinity(0)))
        for task_split, record in run(tokenise_shard, tasks):
            splits[task_split].append(record)
        kept = sum(shard.documents for shards in splits.values() for shard in shards)
        if not kept:
            raise DataError(f"source {corpus.source} holds no text: nothing to prepare")
        DocumentManifest(
            source=CorpusRecord(
                path=str(corpus.source.absolute()),
                field=corpus.field,
                files=len(corpus.files),
                signature=signature,
                documents=samples.count,
                empty_documents=samples.count - kept,
                damaged_documents=len(samples.quarantine.items()),
                kind=corpus.kind,
            ),
            tokenizer=TokenizerRecord(
                sha256=tokenizer.sha256,
                vocabulary_size=tokenizer.vocabulary_size,
                token_type=tokenizer.token_type.name,
                special=tokenizer.special,
            ),
            splits={split: tuple(shards) for split, shards in splits.items()},
            split_rule=corpus.split_rule,
        ).save(staging)
        (staging / QUARANTINE_FILE).unlink(missing_ok=True)
        if samples.quarantine.items():
            samples.quarantine.save(staging / QUARANTINE_FILE)
    prepared = DocumentData.open(str(output))
    _remove_leftovers(output, prepared.manifest)
    return prepared


@dataclass(frozen=True)
class ShardTask:
    """The samples of one shard, numbered, and where the shard goes."""

    directory: Path
    tokenizer_sha256: str
    split: str
    name: str
    samples: list[tuple[int, tuple[str, ...]]]

    @property
    def text_sha256(self) -> str:
        digest = hashlib.sha256()
        for number, texts in self.samples:
            for text in texts:
                content = text.encode()
                digest.update(f"{number}:{len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()


def tokenise_shard(task: ShardTask) -> tuple[str, ShardRecord]:
    """Write the shard, unless an earlier start has written it of the same text; return its split and record."""
    record_file = task.directory / f"{task.name}.record.json"
    text_sha256 = task.text_sha256
    if record_file.is_file():
        written = json.loads(record_file.read_bytes())
        if (written.pop("tokenizer_sha256"), written["text_sha256"]) == (task.tokenizer_sha256, text_sha256):
            return task.split, ShardRecord(**written)
    record_file.unlink(missing_ok=True)
    tokenizer = _opened(task.directory / "tokenizer.json", task.tokenizer_sha256)
    encoded = tokenizer.encode(text for _, texts in task.samples for text in texts)
    end = np.array([tokenizer.special.end], dtype=tokenizer.token_type)
    tokens = {number: _joined([next(encoded) for _ in texts], end) for number, texts in task.samples}
    with_tokens = {number: ids for number, ids in tokens.items() if len(ids)}
    record = write_document_shard(task.directory, task.name, with_tokens, text_sha256=text_sha256)
    # Written last: where it is, the shard is whole.
    write_file(record_file, json.dumps({"tokenizer_sha256": task.tokenizer_sha256, **asdict(record)}).encode())
    return task.split, record


def _joined(texts: list[np.ndarray], end: np.ndarray) -> np.ndarray:
    """Return the tokens of all texts with the end token between them; no text holds one of its own."""
    return np.concatenate([piece for text in texts for piece in (end, text)][1:])


@lru_cache(maxsize=1)
def _opened(path: Path, sha256: str) -> TextTokenizer:
    """Return the tokenizer at `path`; the checksum tells the cache of a long-lived worker that it is another one."""
    return TextTokenizer.open(path)


class _CountedSamples:
    """The samples of the corpus with their numbers; can be read once."""

    def __init__(self, corpus: Corpus, reader: DocumentReader, damaged_allowed: int) -> None:
        self.quarantine = Quarantine(damaged_allowed)
        self.count = 0
        self._samples = corpus.read(reader, self.quarantine)

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        for number, sample in enumerate(self._samples):
            self.count = number + 1
            yield number, sample


def _shard_tasks(
    samples: _CountedSamples, directory: Path, tokenizer_sha256: str, shard_characters: int
) -> Iterator[ShardTask]:
    """Deal the samples to the splits and hand out a task whenever one has enough for a shard."""
    pending: dict[str, list[tuple[int, tuple[str, ...]]]] = {split: [] for split in SPLITS}
    characters = dict.fromkeys(SPLITS, 0)
    shards = dict.fromkeys(SPLITS, 0)

    def task(split: str) -> ShardTask:
        name = f"{split}-{shards[split]:06d}"
        task = ShardTask(directory, tokenizer_sha256, split, name, pending[split])
        shards[split] += 1
        pending[split], characters[split] = [], 0
        return task

    for number, sample in samples:
        split = sample.split or split_of(number)
        pending[split].append((number, sample.texts))
        characters[split] += sum(map(len, sample.texts))
        if characters[split] >= shard_characters:
            yield task(split)
    yield from (task(split) for split in SPLITS if pending[split])


def split_of(number: int) -> str:
    """Return the split of the document with this number: of every 20 one is for validation and one for test."""
    first = number - number % _HELD_OUT_EVERY
    for place, split in enumerate(("validation", "test")):
        if number == first + sample_at(first + place, epoch_size=_HELD_OUT_EVERY, seed=0):
            return split
    return "train"


def _check_unchanged(
    existing: DocumentData,
    tokenizer: TextTokenizer,
    corpus: Corpus,
    signature: str,
    samples: _CountedSamples,
    shard_characters: int,
) -> None:
    """Return when `existing` is what was asked for; its text decides where the signature of the source differs."""
    manifest = existing.manifest
    asked = (tokenizer.sha256, corpus.field, corpus.kind)
    if (manifest.tokenizer.sha256, manifest.source.field, manifest.source.kind) != asked:
        raise DataError(
            f"{existing.location} already holds documents of another tokenizer or field: choose another output "
            "directory or delete this one"
        )
    if manifest.source.signature == signature:
        return
    tasks = _shard_tasks(samples, Path(), tokenizer.sha256, shard_characters)
    found = [(task.split, task.text_sha256) for task in tasks]
    if sorted(found) != sorted((name, shard.text_sha256) for name, kept in manifest.splits.items() for shard in kept):
        raise DataError(
            f"{existing.location} was prepared from other text than the source holds now: choose another output "
            "directory or delete this one"
        )


def _remove_leftovers(output: Path, manifest: DocumentManifest) -> None:
    """Remove what only the preparation needed, and what an earlier start left that this one did not take over.

    Only once `output` stands: till then the records are what a next start goes on from.
    """
    shards = [shard for split in manifest.splits.values() for shard in split]
    wanted = {name for shard in shards for name in (shard.shard_file, shard.index_file)}
    wanted |= {"manifest.json", "tokenizer.json", QUARANTINE_FILE}
    for file in output.iterdir():
        if file.name not in wanted:
            file.unlink()
