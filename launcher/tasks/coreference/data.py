"""The documents of a run: sequences to learn from, and held-out documents to find clusters in."""

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from data_pipeline.sampling.clusters import ClusterSequences, CoreferenceDocument
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.coreference import coreference
from data_pipeline.sources.corpora import Corpus
from launcher.tasks.coreference.config import CoreferenceRun
from launcher.tasks.examples import LabelledData
from longformer.inference.segments import SegmentReading
from longformer.inference.words import sentence_lengths, words_of
from longformer.models.coreference.config import ONTONOTES_GENRES


@dataclass(frozen=True)
class CoreferenceData(LabelledData[CoreferenceRun]):
    """Documents with clusters of mentions; see `launcher.tasks.data.TaskData`."""

    is_words: ClassVar[bool] = True

    def corpus(self) -> Corpus:
        section = self.config.data
        return coreference(
            section.source,
            split_words=words_of,
            split_sentences=sentence_lengths,
            singletons=section.singletons,
            held_out=section.held_out,
            encoding=section.encoding,
        )

    def labelled(self, split: str, length: int, seed: int) -> ClusterSequences:
        section, reading = self.config.data, self.reading(length)
        room = length - 2 - section.overlap
        return ClusterSequences(
            PreparedData.open(self.directory).split(split),
            layout=reading.arrays,
            layout_key=repr(reading),
            most_tokens=room * section.training_segments + section.overlap,
            long_documents="refuse" if section.long_documents == "refuse" else "crop",
            singletons=section.singletons,
            seed=seed,
        )

    def reading(self, length: int) -> SegmentReading:
        """Returns how documents become segments of `length` tokens."""
        special = PreparedData.open(self.directory).tokenizer.special
        return SegmentReading(length, self.config.data.overlap, special.begin, special.end, ONTONOTES_GENRES)

    def held_out(self, split: str, *, limit: int | None = None) -> list[CoreferenceDocument]:
        """Returns the first `limit` documents of a split, or all.

        Raises:
            DataError: prepared documents are missing or damaged.
        """
        examples = PreparedData.open(self.directory).split(split).examples()
        return [CoreferenceDocument.of(each) for each in islice(examples, limit)]

    def lengths(self, split: str) -> list[int]:
        """Returns how many tokens the documents of a split have, special ones left out."""
        return self.labelled(split, self.config.phases[-1].sequence_length, seed=0).lengths()
