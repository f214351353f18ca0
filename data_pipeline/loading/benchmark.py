"""How fast data is prepared, beside the tokenizer library alone, and how fast batches are made of it."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.loading.batches import Batches
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.prepare.prepare import prepare
from data_pipeline.sampling.masking import MaskedSequences, Masking
from data_pipeline.sampling.text import PackedSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.documents import documents, find_documents, read_documents
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.quarantine import Quarantine
from data_pipeline.sources.records import Reading
from data_pipeline.tokenizers.subword import TextTokenizer


@dataclass(frozen=True)
class LoaderSpeed:
    """Masked, packed batches of one rank, made as fast as they can be."""

    workers: int
    cold: bool
    """The shards were not in the operating system's page cache."""
    first_batch_seconds: float
    tokens_per_second: float
    """From the first batch on, padding and special tokens included."""


def measure_loader(
    data: PreparedData,
    *,
    sequence_length: int,
    micro_batch_size: int,
    open_shards: int,
    workers: int,
    cold: bool,
    seconds: float,
) -> LoaderSpeed:
    """Draws batches of the training split for `seconds` seconds.

    Raises:
        DataError: the split is too small for one batch, or damaged.
    """
    if cold:
        _forget_pages(Path(data.location))
    split = data.split("train", open_shards=open_shards)
    packed = PackedSequences(split, sequence_length=sequence_length, seed=0)
    batches = Batches(
        MaskedSequences(packed, Masking(split.tokenizer, seed=0)),
        global_batch_size=micro_batch_size,
        micro_batch_size=micro_batch_size,
        rank=0,
        world_size=1,
        workers=workers,
    )
    start = time.perf_counter()
    stream = iter(batches)
    next(stream)
    first = time.perf_counter()
    tokens = 0
    while (now := time.perf_counter()) - first < seconds:
        tokens += next(stream)["input_ids"].numel()
    return LoaderSpeed(workers, cold, first - start, tokens / (now - first))


def _forget_pages(directory: Path) -> None:
    """Asks the operating system to drop the files from its cache; it does so where they are written out."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(frozen=True)
class PreparationSpeed:
    """One core: the tokenizer library on texts in memory, and the whole preparation of the same texts."""

    text_bytes: int
    tokenizer_seconds: float
    """CPU seconds."""
    preparation_seconds: float
    """CPU seconds, from the source files to the finished directory."""

    @property
    def share_of_library(self) -> float:
        """Preparation's bytes per second, over the library's."""
        return self.tokenizer_seconds / self.preparation_seconds


def measure_preparation(source: Path, tokenizer: TextTokenizer, *, field: str, repeats: int) -> PreparationSpeed:
    """Time both in turns; the fastest run of each counts.

    Raises:
        DataError: as `prepare`.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    files = find_documents(source)
    found = read_documents(files, DocumentReader(files), Reading((field,)), quarantine=Quarantine(0))
    texts = [document.text for document in found]
    library, preparation = [], []
    for _ in range(repeats):
        start = time.process_time()
        sum(1 for _ in tokenizer.encode_raw(texts))
        library.append(time.process_time() - start)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            prepare(
                documents(source, field=field),
                tokenizer=tokenizer,
                output=Path(folder, "out"),
                task_map=in_this_process,
            )
            preparation.append(time.process_time() - start)
    return PreparationSpeed(sum(len(text.encode()) for text in texts), min(library), min(preparation))
