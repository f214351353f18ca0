"""The sections of a run file for summarization: a BART made long, documents with their summaries, and beam search."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.config.run_config import TaskWords
from launcher.config.sections import Count, Fraction, Section
from launcher.tasks.sections import PretrainedRun, PretrainedSection, TokenizedSection

Published = Literal["bart-base", "bart-large", "led-base-16384"]


def _bart(width: int, layers: int) -> dict[str, Any]:
    parts = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in (("layers", layers), ("attention_heads", width // 64), ("ffn_dim", 4 * width))
    }
    return {"model_type": "bart", "vocab_size": 50_265, "max_position_embeddings": 1_024, "d_model": width, **parts}


PUBLISHED: dict[Published, dict[str, Any]] = {
    "bart-base": _bart(768, 6),
    "bart-large": _bart(1_024, 12),
    "led-base-16384": _bart(768, 6)
    | {
        "model_type": "led",
        "max_encoder_position_embeddings": 16_384,
        "max_decoder_position_embeddings": 1_024,
        "attention_window": [1_024] * 6,
    },
}
"""Shapes of published models, as their config.json has them."""


class SummarizerSection(PretrainedSection):
    """The model that learns to summarize, and is made long where it is short: a BART, mBART or LED."""

    short_defaults: ClassVar[tuple[int, int]] = (16_384, 1_024)

    published: Published | None = None
    """Whose shape `longformer plan` takes while `source` is not there yet."""
    decoder_starts_with: Literal["end", "begin"] = "end"
    """Convention of teacher forcing. `end`: the decoder reads </s>, then learns <s> and the summary, as in Hugging
    Face; `begin`: it reads <s>, then learns the summary, as in the Longformer authors' code. An mBART has its own: the
    decoder reads the language, then learns the summary."""


class SummariesSection(TokenizedSection):
    """Which summaries are learned, and where their prepared form lies."""

    source: Path
    """File of records (JSON lines, JSON array, CSV, Parquet), or a folder of them whose names tell train, val and
    test apart; relative to the working directory."""
    layout: str = "document=document,summary=summary"
    """scientific_papers (arXiv, PubMed), sumpubmed, qmsum, squality, or the names of the fields."""
    target_length: PositiveInt = 256
    """Tokens of a summary that are learned at most, special ones included."""
    label_smoothing: Fraction = 0.0
    """Probability that a target token gives away to all others in equal parts."""
    encoding: str | None = None
    """Of files that are not UTF-8, such as cp1252; quarantine.jsonl says what they look like."""
    damaged_allowed: Count = 0
    """So many records may be unreadable; they are left out and named in quarantine.jsonl."""
    bucket_batches: PositiveInt = 1
    """So many batches' documents are sorted by length and dealt out again, to pad less; 1 = in their shuffled order."""


class WritingSection(Section):
    """How summaries of held-out documents are written. The model keeps it: in use it writes in the same way."""

    batch_size: PositiveInt = 4
    """Documents that are written about together."""
    limit_documents: PositiveInt | None = None
    """Evaluate only so many documents of each split; `null` = all."""
    tokenizer: Literal["default", "unicode", "model"] | None = None
    """Words that ROUGE counts: `default`, Google's a-z and 0-9; `unicode`, letters of all scripts (Chinese, Japanese
    and Thai by characters); `model`, the model's tokens. `null` = default for English, else unicode; the report says
    which."""
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
        return self.model_dump(exclude={"batch_size", "limit_documents", "tokenizer"}) | {"early_stopping": True}


class SummarizationRun(PretrainedRun):
    """A BART made long that learns to summarize documents phase by phase (Longformer paper, section 7)."""

    min_length: ClassVar[int] = 16
    reader: ClassVar[str] = "the encoder"

    task: Literal["summarization"]
    """What is learned: here, to summarize documents."""
    model: SummarizerSection
    """The model."""
    data: SummariesSection
    """The documents and their summaries."""
    evaluation: WritingSection = WritingSection()
    """How summaries are written when the model is evaluated after each phase, and in use."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_token",
            bits_short="bits/token",
            scores=("rouge1", "rouge2", "rougeL", "rougeLsum"),
            score_short="ROUGE-1",
            metrics={"rouge1": "max", "rouge2": "max", "rougeL": "max", "rougeLsum": "max"},
        )

    @model_validator(mode="after")
    def _check_target_length(self) -> Self:
        if self.data.target_length < 16:
            raise ValueError(f"data.target_length is {self.data.target_length}, but it should be at least 16")
        return self
