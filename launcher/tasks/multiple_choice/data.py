"""The texts with choices of a run: sequences to learn from, and held-out examples to choose for."""

from dataclasses import dataclass, replace
from itertools import islice

from data_pipeline.sampling.choices import ChoiceExample, ChoiceSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.choices import CHOICE, multiple_choice
from data_pipeline.sources.corpora import Corpus
from data_pipeline.tokenizers.tokenizer import TextFormat
from launcher.tasks.examples import LabelledData
from launcher.tasks.multiple_choice.config import MultipleChoiceRun

_USUAL_CHOICES = 4
"""Stands for the number of choices in plans while the data is not prepared."""


@dataclass(frozen=True)
class MultipleChoiceData(LabelledData[MultipleChoiceRun]):
    """Texts with choices; see `launcher.tasks.data.TaskData`."""

    def corpus(self) -> Corpus:
        section = self.config.data
        return multiple_choice(
            section.source,
            context=section.context,
            question=section.question,
            choices=section.choices,
            label=section.label,
            label_as=section.label_as,
            encoding=section.encoding,
        )

    def labelled(self, split: str, length: int, seed: int) -> ChoiceSequences:
        return ChoiceSequences(
            PreparedData.open(self.directory).split(split),
            around=self.around(),
            sequence_length=length,
            seed=seed,
            long_documents=self.config.data.long_documents,
        )

    def around(self) -> TextFormat:
        """Returns what stands around a text and a choice."""
        around = PreparedData.open(self.directory).tokenizer.format
        types = self.source_settings().get("type_vocab_size", 2)
        return around if types > 1 else replace(around, second_type=0)

    def held_out(self, split: str, *, limit: int | None = None) -> list[ChoiceExample]:
        """Returns the first `limit` examples of a split, or all.

        Raises:
            DataError: prepared examples are missing or damaged.
        """
        examples = PreparedData.open(self.directory).split(split).examples()
        return [ChoiceExample.of(each) for each in islice(examples, limit)]

    def lengths(self, split: str) -> list[int]:
        """Returns how many tokens the texts of a split have, with the longest choice beside them."""
        return self.labelled(split, self.config.phases[-1].sequence_length, seed=0).lengths()

    def most_choices(self) -> int:
        """Returns the number of choices of the example that has most of them; a usual one until it is known."""
        if not self.is_prepared:
            return _USUAL_CHOICES
        splits = PreparedData.open(self.directory).manifest.splits.values()
        return len({name for shards in splits for shard in shards for name in shard.tokens if name.startswith(CHOICE)})
