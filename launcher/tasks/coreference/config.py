"""The sections of a run file for coreference: an encoder made long, and documents with clusters of mentions."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.config.run_config import TaskWords
from launcher.config.sections import Count, Fraction, PositiveNumber, Section
from launcher.tasks.sections import LabelEvaluationSection, LabelledRun, LabelledSection


class ClustersSection(LabelledSection):
    """Which documents are learned, whose mentions of one thing are a cluster each."""

    source: Path
    """File, folder or .zip of columns (CoNLL-2012, or fewer of them, such as LitBank's), or of records with words or
    texts and clusters; relative to the working directory."""
    held_out: Annotated[int, Field(ge=3)] = 20
    """Where names of files tell of no splits, of so many documents one is for validation and one for test."""
    singletons: bool = False
    """Whether a mention that nothing else refers to is a cluster of its own, as in LitBank; `false` = it is no mention,
    as in OntoNotes."""
    long_documents: Literal["segments", "refuse"] = "segments"
    """What becomes of documents longer than the phase's sequences: the encoder reads them in `segments`, above which
    the whole document is one; or they are refused, by name."""
    overlap: Count = 0
    """Tokens that two segments share; each is taken from the one where it stands farther from an edge."""
    training_segments: PositiveInt = 1
    """A training document of more segments is cropped to so many, at random, between two sentences."""


class HeadSection(Section):
    """What finds mentions and their antecedents above the encoder."""

    kind: Literal["coarse_to_fine", "start_to_end"] = "coarse_to_fine"
    """The model of the Longformer paper (Lee et al. 2018, Joshi et al. 2019), or the lighter one that needs no
    representations of spans (Kirstain et al. 2021)."""
    head_size: PositiveInt = 3000
    """Inner width of its scorers."""
    max_span_tokens: PositiveInt = 30
    """Tokens of the longest mention."""
    spans_per_word: PositiveNumber = 0.4
    """So many of the best spans are kept as possible mentions, for every word of a document."""
    max_spans: PositiveInt = 3900
    """At most so many."""
    max_antecedents: PositiveInt = 50
    """Of coarse_to_fine: spans that each span is compared with in full."""
    scorings: PositiveInt = 2
    """Of coarse_to_fine: how often these are compared; before each time but the first one, spans take up what their
    antecedents tell."""
    mention_loss: Annotated[float, Field(ge=0)] = 1.0
    """How much it counts in the loss which spans are mentions at all; 0, as in the paper: only what they go back to is
    learned, which takes many documents."""
    dropout: Fraction = 0.3
    """Probability of dropping a feature."""


class CoreferenceRun(LabelledRun):
    """An encoder made long that learns which mentions of a document are of the same thing."""

    task: Literal["coreference"]
    """What is learned: here, clusters of mentions."""
    data: ClustersSection
    """The documents and their clusters."""
    head: HeadSection = HeadSection()
    """What finds the clusters."""
    evaluation: LabelEvaluationSection = LabelEvaluationSection(batch_size=1)
    """How held-out documents are judged after each phase."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_document",
            bits_short="bits/document",
            scores=("conll_f1", "muc_f1", "b3_f1", "ceafe_f1"),
            score_short="CoNLL F1",
            metrics=dict.fromkeys(("conll_f1", "mention_f1", "lea_f1"), "max"),
        )

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        for index, phase in enumerate(self.phases):
            if 2 * self.data.overlap >= phase.sequence_length:
                raise ValueError(
                    f"data.overlap is {self.data.overlap}, but phases[{index}].sequence_length is "
                    f"{phase.sequence_length}: segments should share less than half of their tokens"
                )
        return self

    @model_validator(mode="after")
    def _check_singletons(self) -> Self:
        if self.data.singletons and not self.head.mention_loss:
            raise ValueError("data.singletons is true, but head.mention_loss is 0: no mention would be learned alone")
        return self
