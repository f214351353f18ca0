"""The sections of a run file for continued masked-LM pretraining: a short model made long, and its documents."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from launcher.config.run_config import TaskWords
from launcher.config.sections import Count, Name, PositiveNumber, Section
from launcher.tasks.sections import PretrainedRun, PretrainedSection, TokenizedSection

Published = Literal["roberta-base", "roberta-large", "longformer-base-4096"]
_ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 50_265,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "max_position_embeddings": 514,
}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}

PUBLISHED: dict[Published, dict[str, Any]] = {
    "roberta-base": _ROBERTA | _BASE,
    "roberta-large": _ROBERTA
    | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "longformer-base-4096": _ROBERTA
    | _BASE
    | {"model_type": "longformer", "max_position_embeddings": 4098, "attention_window": [512] * 12, "sep_token_id": 2},
}
"""Shapes of published models, as their config.json has them."""


class LongModelSection(PretrainedSection):
    """The model that is trained on, and made long where it is short: a RoBERTa, XLM-R, BERT, ELECTRA or Longformer."""

    published: Published | None = None
    """Whose shape `longformer plan` takes while `source` is not there yet."""
    freeze_pretrained: bool = False
    """Train the new position rows only, and leave everything else as the source has it."""


class CorpusSection(Section):
    """One corpus of the mix."""

    name: Name
    """Name of the corpus, unique in the run; its prepared documents lie in `data.directory`/NAME."""
    path: Path
    """File or folder of text or records (JSON lines, JSON arrays, CSV, Parquet), plain or packed;
    relative to the working directory."""
    weight: PositiveNumber = 1.0
    """Share of the training rows that come from it, relative to the others'."""
    field: str = "text"
    """Where records keep the text."""
    encoding: str | None = None
    """Of files that are not UTF-8, such as cp1252; quarantine.jsonl says what they look like."""
    read_as: Literal["text"] | None = None
    """`text` reads files as text though they look like records."""
    damaged_allowed: Count = 0
    """So many documents may be unreadable; they are left out and named in quarantine.jsonl."""


class DocumentsSection(TokenizedSection):
    """Which documents are learned, and where their prepared form lies."""

    sources: tuple[CorpusSection, ...]
    """The corpora."""
    tokenizer: Path | None = None
    """tokenizer.json, or a folder that holds one; `null` = that of `model.source`."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are to be predicted: 80 percent of them hidden, 10 replaced, 10 left as they are."""
    cross_document_attention: bool = False
    """Let the documents that share a row see each other, as the paper's do; else each is read as if it were alone."""

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
    """How held-out documents are evaluated: the same hidden tokens for every model and run."""

    batch_size: PositiveInt = 4
    """Rows per rank and forward pass."""
    limit_tokens: PositiveInt | None = None
    """Judge only so many tokens of each split; `null` = all."""


class MaskedLMRun(PretrainedRun):
    """A RoBERTa made long that goes on learning to predict hidden tokens (Longformer paper, section 5)."""

    task: Literal["masked_lm"]
    """What is learned: here, to predict hidden tokens of documents."""
    model: LongModelSection
    """The model."""
    data: DocumentsSection
    """The documents."""
    evaluation: MaskedEvaluationSection = MaskedEvaluationSection()
    """How held-out documents are evaluated after each phase."""

    @property
    def words(self) -> TaskWords:
        return TaskWords(
            bits="bits_per_masked_token",
            bits_short="bits/masked token",
            scores=("bits_per_masked_token",),
            score_short="bits per masked token",
            metrics={"bits_per_masked_token": "min"},
        )

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        if self.model.freeze_pretrained and self.training.freeze_layers:
            raise ValueError(
                f"training.freeze_layers is {self.training.freeze_layers}, which freezes the new positions too, but "
                "nothing else is trained with model.freeze_pretrained; give one of the two"
            )
        return self
