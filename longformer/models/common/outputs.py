"""What models return: named values, also reachable by position as in Hugging Face, where absent ones do not count."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """Base of all outputs; transformers' pipelines use them as tables, and rebuild them from one."""

    def __post_init__(self) -> None:
        first, *_ = vars(self).values()
        if isinstance(first, dict):
            for name, value in ({field.name: None for field in dataclasses.fields(self)} | first).items():
                self[name] = value

    def to_tuple(self) -> tuple[Any, ...]:
        """Returns the values that are there, in order."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(value for value in values if value is not None)

    def __len__(self) -> int:
        """Returns how many values are there."""
        return len(self.to_tuple())

    def __getitem__(self, key: int | slice | str) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Sets a value, also one that no field is for: transformers' pipelines add what they want to remember."""
        setattr(self, key, value)

    def __contains__(self, key: object) -> bool:
        return key in dict(self.items())

    def keys(self) -> Iterator[str]:
        """Yields the names of what is there."""
        return (name for name, _ in self.items())

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yields names and values of what is there."""
        return ((name, value) for name, value in vars(self).items() if value is not None)


@dataclass
class EncoderOutput(ModelOutput):
    """Result of `LongformerModel`, and of the encoder of an LED."""

    last_hidden_state: Tensor
    """(batch, positions, hidden_size)."""
    pooler_output: Tensor | None = None
    """(batch, hidden_size), made of the first token; None without a pooling layer."""
    hidden_states: tuple[Tensor, ...] | None = None
    """On request: the embeddings and the result of every layer, each (batch, positions, hidden_size)."""
    attentions: tuple[Tensor, ...] | None = None
    """On request, per layer: (batch, heads, positions, global tokens + window + 1), `AttentionProbabilities.local`."""
    global_attentions: tuple[Tensor, ...] | None = None
    """On request, per layer: (batch, heads, positions, global tokens); None where the batch has no global token."""


@dataclass
class HeadOutput(ModelOutput):
    """Result of a model with a head; what is known of the layers is as in `EncoderOutput`."""

    loss: Tensor | None = None
    """(), there when labels were given."""
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    global_attentions: tuple[Tensor, ...] | None = None


@dataclass
class QuestionAnsweringOutput(ModelOutput):
    """Result of `LongformerForQuestionAnswering`; what is known of the layers is as in `EncoderOutput`."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    """(batch, positions)."""
    end_logits: Tensor | None = None
    """(batch, positions)."""
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    global_attentions: tuple[Tensor, ...] | None = None


@dataclass
class MultiHopOutput(ModelOutput):
    """Result of `LongformerForMultiHopAnswers`."""

    start_logits: Tensor
    """(batch, positions)."""
    end_logits: Tensor
    """(batch, positions)."""
    type_logits: Tensor
    """(batch, 3): the answer is a piece of the paragraphs, yes, or no."""
    sentence_logits: Tensor
    """(batch, sentences)."""
    paragraph_logits: Tensor
    """(batch, paragraphs)."""
