"""Prepare a corpus: examples -> token ids -> shards with indexes and a manifest, on all cores, resumable after a kill.

The corpus is read in order and cut into runs of examples that become a shard each. Which examples stand in which shard
follows from the corpus alone, so the output is the same for every number of workers and of interruptions. Every shard
is committed by itself: a later start takes over those whose examples and tokenizer are the same. Asked again with an
unchanged source there is nothing to do; a directory that holds anything else is never overwritten.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import LocalProcesses, TaskMap, in_this_process
from data_pipeline.shards.manifest import FILE, QUARANTINE_FILE, CorpusRecord, Manifest, is_prepared
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.shard import Example, ShardRecord, write_shard
from data_pipeline.shards.staging import staged_directory, write_file
from data_pipeline.sources.corpora import SPLITS, Corpus, RawExample, pieces_field, spans_field, split_of
from data_pipeline.sources.files import DocumentReader, ReportProgress, source_signature
from data_pipeline.sources.labels import ClassCounts
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.tokenizers.byte import Vocabulary
from data_pipeline.tokenizers.subword import TextTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer, TokenizerRecord, content_sha256

SHARD_CHARACTERS = 1 << 24
_LEFT_OUT_SHOWN = 20
"""Files whose names the manifest holds; quarantine.jsonl has all."""


def prepare(
    corpus: Corpus,
    *,
    output: Path,
    tokenizer: Tokenizer | None = None,
    damaged_allowed: int = 0,
    task_map: TaskMap | None = None,
    shard_characters: int = SHARD_CHARACTERS,
    report_progress: ReportProgress | None = None,
) -> PreparedData:
    """Returns the prepared examples of a corpus in `output`, making them first where they are not there yet.

    Whether a source changed is judged by its files' names, sizes and times of change, as make and rsync do. Where
    those differ the source is read again, and the result compared by content.

    Args:
        corpus: what is prepared (data_pipeline/sources).
        output: the directory to make; its parents are made too.
        tokenizer: makes token ids of texts; None: the corpus brings its own, of characters.
        damaged_allowed: how many examples may be unreadable; they are skipped and named in quarantine.jsonl.
        task_map: where the work is done; None: on all cores of this machine, characters in this process.
        shard_characters: characters of the examples of a full shard.
        report_progress: called with (done, total) in bytes of the source as stored.

    Raises:
        ValueError: the corpus brings no tokenizer, and none is given.
        DataError: source missing, empty or damaged; `output` holds something else; no space left. Finished shards are
            kept for the next start, except where `output` is something else.
    """
    signature = source_signature(corpus.files)
    examples = _NumberedExamples(corpus, report_progress, damaged_allowed)
    if is_prepared(output):
        existing = PreparedData.open(output)
        _check_unchanged(existing, tokenizer, corpus, signature, examples, shard_characters)
        _remove_leftovers(output, existing.manifest)
        return existing
    if tokenizer is None:
        if corpus.tokenizer is None:
            raise ValueError(f"{corpus.name} need a tokenizer")
        tokenizer = corpus.tokenizer(examples.reader)
        # Bytes are looked up, not tokenised: there is no work to hand out.
        task_map = task_map or in_this_process
    task_map = task_map or LocalProcesses(len(os.sched_getaffinity(0)))
    with staged_directory(output) as staging:
        tokenizer.save(staging / tokenizer.file_name)
        record = TokenizerRecord.of(tokenizer)
        splits: dict[str, list[ShardRecord]] = {split: [] for split in SPLITS}
        for split, shard in task_map(tokenise_shard, _shard_tasks(examples, staging, record, shard_characters)):
            splits[split].append(shard)
        examples.classes.check()
        left_out = examples.quarantine.left_out
        kept = sum(shard.examples for shards in splits.values() for shard in shards)
        if not kept:
            raise corpus.nothing(examples.quarantine)
        Manifest(
            corpus=CorpusRecord(
                name=corpus.name,
                settings=corpus.settings,
                path=None if corpus.source is None else str(corpus.source.absolute()),
                files=len(corpus.files),
                signature=signature,
                examples=examples.count,
                empty_examples=examples.count - kept,
                damaged_examples=len(examples.quarantine.items()),
                split_rule=corpus.split_rule(),
                left_out_files=len(left_out),
                left_out=dict(islice(left_out.items(), _LEFT_OUT_SHOWN)),
                classes=examples.classes.as_json(),
            ),
            tokenizer=record,
            splits={split: tuple(shards) for split, shards in splits.items()},
        ).save(staging)
        (staging / QUARANTINE_FILE).unlink(missing_ok=True)
        if examples.quarantine.items() or left_out:
            examples.quarantine.save(staging / QUARANTINE_FILE)
    prepared = PreparedData.open(output)
    _remove_leftovers(output, prepared.manifest)
    return prepared


@dataclass(frozen=True)
class ShardTask:
    """The examples of one shard, numbered, and where the shard goes."""

    directory: Path
    tokenizer: TokenizerRecord
    split: str
    name: str
    examples: list[tuple[int, RawExample]]
    words: tuple[str, ...]
    spans: tuple[str, ...]
    """Both as in `Corpus`."""

    @property
    def text_sha256(self) -> str:
        """The identity of the examples before they are tokenised."""
        digest = hashlib.sha256(" ".join((*self.words, *self.spans)).encode())
        for number, example in self.examples:
            fields = json.dumps(dict(example.fields), sort_keys=True).encode()
            texts = [(name, text if isinstance(text, bytes) else text.encode()) for name, text in example.texts.items()]
            for name, content in [("", fields), *texts]:
                digest.update(f"{number}:{name}:{len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()


def tokenise_shard(task: ShardTask) -> tuple[str, ShardRecord]:
    """Writes the shard, unless an earlier start has written it of the same examples; returns its split and record."""
    record_file = task.directory / f"{task.name}.record.json"
    text_sha256 = task.text_sha256
    if record_file.is_file():
        written = json.loads(record_file.read_bytes())
        if (written.pop("tokenizer_sha256"), written["text_sha256"]) == (task.tokenizer.sha256, text_sha256):
            return task.split, ShardRecord(**written)
    record_file.unlink(missing_ok=True)
    tokenizer = _opened(task.directory / task.tokenizer.file, task.tokenizer.sha256)
    # What holds no token is skipped.
    with_tokens = (example for example in _tokenised(task, tokenizer) if any(map(len, example.tokens.values())))
    record = write_shard(task.directory, task.name, with_tokens, text_sha256=text_sha256)
    # Written last: where it is, the shard is whole.
    write_file(record_file, json.dumps({"tokenizer_sha256": task.tokenizer.sha256, **asdict(record)}).encode())
    return task.split, record


def _tokenised(task: ShardTask, tokenizer: Tokenizer) -> Iterator[Example]:
    known = {*task.words, *task.spans}
    named = (each for _, example in task.examples for each in example.texts.items())
    plain = tokenizer.encode_batch(text for name, text in named if name not in known)
    for number, raw in task.examples:
        fields, tokens = dict(raw.fields), {}
        for name in raw.texts:
            if name in known:
                tokens[name], told = _encoded(tokenizer, task, name, raw)
                fields |= told
            else:
                tokens[name] = next(plain)
        yield Example(number, fields, tokens)


def _encoded(
    tokenizer: Tokenizer, task: ShardTask, name: str, example: RawExample
) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the token ids of a text that is words or of which pieces are marked, and the fields that tell of it."""
    assert isinstance(tokenizer, TextTokenizer), "characters have no pieces"
    text, field = str(example.texts[name]), spans_field(name)
    marked = example.fields[field] if name in task.spans else ()
    if name in task.words:
        ids, pieces, spans = tokenizer.encode_words(text.split("\n"), marked)
        return ids, {pieces_field(name): pieces} | ({field: spans} if name in task.spans else {})
    ids, spans = tokenizer.encode_spans(text, marked)
    return ids, {field: spans}


@lru_cache(maxsize=1)
def _opened(path: Path, sha256: str) -> Tokenizer:
    """Returns the tokenizer at `path`; the checksum tells the cache of a long-lived worker that it is another one."""
    opening: Callable[[Path], Tokenizer] = Vocabulary.load if path.name == Vocabulary.file_name else TextTokenizer.open
    return opening(path)


class _NumberedExamples:
    """The examples of the corpus with their numbers; can be iterated over once."""

    def __init__(self, corpus: Corpus, report_progress: ReportProgress | None, damaged_allowed: int) -> None:
        self.reader = DocumentReader(corpus.files, report_progress, passes=corpus.passes)
        self.quarantine = Quarantine(damaged_allowed)
        self.count = 0
        self.classes = ClassCounts()
        self.words, self.spans = corpus.words, corpus.spans
        self._counted = corpus.classes
        self._examples = corpus.read(self.reader, self.quarantine)

    def __iter__(self) -> Iterator[tuple[int, str, RawExample]]:
        """Yields the number of each example, its split, and the example."""
        for number, example in enumerate(self._examples):
            self.count = number + 1
            split = example.split or split_of(number)
            if any(text.strip() for text in example.texts.values()):
                for name in self._counted:
                    self.classes.add(split, name, example.fields[name])
            yield number, split, example


def _shard_tasks(
    examples: _NumberedExamples, directory: Path, tokenizer: TokenizerRecord, shard_characters: int
) -> Iterator[ShardTask]:
    """Deals the examples to the splits and hands out a task whenever one has enough for a shard."""
    pending: dict[str, list[tuple[int, RawExample]]] = {split: [] for split in SPLITS}
    characters = dict.fromkeys(SPLITS, 0)
    shards = dict.fromkeys(SPLITS, 0)

    def task(split: str) -> ShardTask:
        name = f"{split}-{shards[split]:06d}"
        task = ShardTask(directory, tokenizer, split, name, pending[split], examples.words, examples.spans)
        shards[split] += 1
        pending[split], characters[split] = [], 0
        return task

    for number, split, example in examples:
        pending[split].append((number, example))
        characters[split] += example.characters
        if characters[split] >= shard_characters:
            yield task(split)
    yield from (task(split) for split in SPLITS if pending[split])


def _check_unchanged(
    existing: PreparedData,
    tokenizer: Tokenizer | None,
    corpus: Corpus,
    signature: str,
    examples: _NumberedExamples,
    shard_characters: int,
) -> None:
    """Returns when `existing` is what was asked for; its content decides where the signature of the source differs."""
    check_same(existing, tokenizer, corpus)
    manifest, record = existing.manifest, existing.manifest.corpus
    if record.signature == signature:
        return
    found = [
        (task.split, task.text_sha256) for task in _shard_tasks(examples, Path(), manifest.tokenizer, shard_characters)
    ]
    if sorted(found) != sorted((name, shard.text_sha256) for name, kept in manifest.splits.items() for shard in kept):
        raise DataError(
            f"{existing.location} was prepared from other text than the source holds now: choose another output "
            "directory or delete this one"
        )
    # Known at the next start without reading it.
    replace(manifest, corpus=replace(record, signature=signature)).save(Path(existing.location))


def check_same(existing: PreparedData, tokenizer: Tokenizer | None, corpus: Corpus) -> None:
    """Checks that prepared data is what was asked for, as far as that is known without reading it.

    Raises:
        DataError: it is of another corpus or tokenizer, or a file is missing.
    """
    manifest, record = existing.manifest, existing.manifest.corpus
    if (record.name, dict(record.settings)) != (corpus.name, dict(corpus.settings)):
        raise DataError(
            f"{existing.location} already holds {record}, not {corpus}: choose another output directory or delete this "
            "one"
        )
    if tokenizer is not None and content_sha256(tokenizer.content.encode()) != manifest.tokenizer.sha256:
        raise DataError(
            f"{existing.location} already holds {corpus} of another tokenizer: choose another output directory or "
            "delete this one"
        )
    existing.check_files()


def _remove_leftovers(output: Path, manifest: Manifest) -> None:
    """Removes what only the preparation needed, and what an earlier start left that this one did not take over.

    Only once `output` stands: till then the records are what a next start goes on from.
    """
    shards = [shard for split in manifest.splits.values() for shard in split]
    wanted = {name for shard in shards for name in (shard.shard_file, shard.index_file)}
    wanted |= {FILE, manifest.tokenizer.file, QUARANTINE_FILE}
    for file in output.iterdir():
        if file.name not in wanted:
            file.unlink()
