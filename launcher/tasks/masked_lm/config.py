"""The sections of a run file for continued masked-LM pretraining: a short model made long, and its documents."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.config.run_config import RunConfig, TaskWords
from launcher.config.sections import Count, Name, PositiveNumber, Section

Published = Literal["roberta-base", "roberta-large", "longformer-base-4096"]


class LongModelSection(Section):
    """The model that is made long and trained on."""

    source: Path
    """Folder of a RoBERTa, XLM-R, BERT, ELECTRA or Longformer model in Hugging Face's layout; relative to the working
    directory."""
    published: Published | None = None
    """Whose shape `longformer plan` takes while `source` is not there yet."""
    max_length: PositiveInt = 4096
    """Tokens that the long model reads; new positions repeat the source's own."""
    window: PositiveInt = 512
    """Neighbours that a token sees, both sides together; even."""
    freeze_pretrained: bool = False
    """Train the new position rows only, and leave everything else as the source has it."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window % 2:
            raise ValueError(f"window is {self.window}, but it should be even: so many neighbours on each side")
        return self


class CorpusSection(Section):
    """One corpus of the mix."""

    name: Name
    """Name of the corpus, unique in the run; its prepared documents lie in `data.directory`/NAME."""
    path: Path
    """File or folder of text, JSON lines or Parquet; relative to the working directory."""
    weight: PositiveNumber = 1.0
    """Share of the training rows that come from it, relative to the others'."""
    field: str = "text"
    """Where JSON lines and Parquet keep the text."""
    damaged_allowed: Count = 0
    """So many documents may be unreadable; they are left out and named in quarantine.jsonl."""


class DocumentsSection(Section):
    """Which documents are learned, and where their prepared form lies."""

    directory: Path
    """Folder of the prepared documents; made when it is absent, reused when sources and tokenizer are unchanged."""
    sources: tuple[CorpusSection, ...]
    """The corpora."""
    tokenizer: Path | None = None
    """tokenizer.json, or a folder that holds one; `null` = that of `model.source`."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are to be predicted: 80 percent of them hidden, 10 replaced, 10 left as they are."""
    loader_workers: Count = 0
    """Processes per rank that make batches ahead of time; the batches are the same with any number."""

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        names = [source.name for source in self.sources]
        if not names:
            raise ValueError("sources is empty: name at least one corpus")
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"sources[{index}].name is {name!r}, which an earlier corpus has already")
        return self


class MaskedEvaluationSection(Section):
    """How held-out documents are judged: the same hidden tokens for every model and run."""

    batch_size: PositiveInt = 4
    """Rows per rank and forward pass."""
    limit_tokens: PositiveInt | None = None
    """Judge only so many tokens of each split; `null` = all."""


class MaskedLMRun(RunConfig):
    """A RoBERTa made long that goes on learning to predict hidden tokens (Longformer paper, section 5)."""

    words: ClassVar[TaskWords] = TaskWords(
        bits="bits_per_masked_token",
        bits_short="bits/masked token",
        scores=("bits_per_masked_token",),
        score_short="bits per masked token",
    )

    task: Literal["masked_lm"]
    """What is learned: here, to predict hidden tokens of documents."""
    model: LongModelSection
    """The model."""
    data: DocumentsSection
    """The documents."""
    evaluation: MaskedEvaluationSection = MaskedEvaluationSection()
    """How held-out documents are judged after each phase."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for index, phase in enumerate(self.phases):
            if not 3 <= phase.sequence_length <= self.model.max_length:
                raise ValueError(
                    f"phases[{index}].sequence_length is {phase.sequence_length}, but the model reads 3 to "
                    f"model.max_length ({self.model.max_length}) tokens"
                )
        if self.training.zero_stage == 3:
            raise ValueError(
                "training.zero_stage is 3, but the loss reads the word embeddings that ZeRO 3 has put away by then; "
                "choose 2 or less"
            )
        return self
