"""The sections of a run file for summarization: a BART made long, documents with their summaries, and beam search."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.config.run_config import RunConfig, TaskWords
from launcher.config.sections import Count, Fraction, Section

Published = Literal["bart-base", "bart-large", "led-base-16384"]


class SummarizerSection(Section):
    """The model that is made long and learns to summarize."""

    source: Path
    """Folder of a BART, mBART or LED model in Hugging Face's layout, with its tokenizer; relative to the working
    directory."""
    published: Published | None = None
    """Whose shape `longformer plan` takes while `source` is not there yet."""
    max_length: PositiveInt = 16_384
    """Tokens that the long encoder reads; new positions repeat the source's own."""
    window: PositiveInt = 1_024
    """Neighbours that a token of the encoder sees, both sides together; even."""
    decoder_starts_with: Literal["end", "begin"] = "end"
    """Convention of teacher forcing. `end`: the decoder reads </s>, then learns <s> and the summary, as in Hugging
    Face; `begin`: it reads <s>, then learns the summary, as in the Longformer authors' code."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window % 2:
            raise ValueError(f"window is {self.window}, but it should be even: so many neighbours on each side")
        return self


class SummariesSection(Section):
    """Which summaries are learned, and where their prepared form lies."""

    directory: Path
    """Folder of the prepared data; made when it is absent, reused when source and tokenizer are unchanged."""
    source: Path
    """File of JSON lines, or a folder of them whose names tell train, val and test apart; relative to the working
    directory."""
    layout: str = "document=document,summary=summary"
    """scientific_papers (arXiv, PubMed), sumpubmed, qmsum, squality, or the names of the fields."""
    target_length: PositiveInt = 256
    """Tokens of a summary that are learned at most, special ones included."""
    label_smoothing: Fraction = 0.0
    """Probability that a target token gives away to all others in equal parts."""
    damaged_allowed: Count = 0
    """So many lines may be unreadable; they are left out and named in quarantine.jsonl."""
    bucket_batches: PositiveInt = 1
    """So many batches' documents are sorted by length and dealt out again, to pad less; 1 = in their shuffled order."""
    loader_workers: Count = 0
    """Processes per rank that make batches ahead of time; the batches are the same with any number."""


class WritingSection(Section):
    """How summaries of held-out documents are written. The model keeps it: in use it writes in the same way."""

    batch_size: PositiveInt = 4
    """Documents that are written about together."""
    limit_documents: PositiveInt | None = None
    """Judge only so many documents of each split; `null` = all."""
    num_beams: PositiveInt = 4
    """Texts that the search follows at the same time; 1 = always the most probable token."""
    length_penalty: float = 2.0
    """Beams are compared by log-probability / tokens ** length_penalty: above 0 favours long summaries."""
    no_repeat_ngram_size: Count = 3
    """So many tokens in a row never occur twice in a summary; 0 = they may."""
    min_length: Count = 0
    """No summary ends before it has so many tokens."""
    max_length: int = Field(default=256, ge=2)
    """Tokens of the longest summary, the decoder's first token included."""

    @property
    def generation(self) -> dict[str, int | float | bool]:
        """The settings of `generate`."""
        return self.model_dump(exclude={"batch_size", "limit_documents"}) | {"early_stopping": True}


class SummarizationRun(RunConfig):
    """A BART made long that learns to summarize documents phase by phase (Longformer paper, section 7)."""

    words: ClassVar[TaskWords] = TaskWords(
        bits="bits_per_token",
        bits_short="bits/token",
        scores=("rouge1", "rouge2", "rougeL", "rougeLsum"),
        score_short="ROUGE-1",
    )

    task: Literal["summarization"]
    """What is learned: here, to summarize documents."""
    model: SummarizerSection
    """The model."""
    data: SummariesSection
    """The documents and their summaries."""
    evaluation: WritingSection = WritingSection()
    """How summaries are written when the model is judged after each phase, and in use."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for index, phase in enumerate(self.phases):
            if not 16 <= phase.sequence_length <= self.model.max_length:
                raise ValueError(
                    f"phases[{index}].sequence_length is {phase.sequence_length}, but the encoder reads 16 to "
                    f"model.max_length ({self.model.max_length}) tokens"
                )
        if self.data.target_length < 16:
            raise ValueError(f"data.target_length is {self.data.target_length}, but it should be at least 16")
        if self.training.zero_stage == 3:
            raise ValueError(
                "training.zero_stage is 3, but every rank writes summaries with whole weights; choose 2 or less"
            )
        return self
