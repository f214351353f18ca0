"""What a model that finds coreference is made of besides its encoder."""

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from longformer.errors import LongformerError

Kind = Literal["coarse_to_fine", "start_to_end"]
ONTONOTES_GENRES = ("bc", "bn", "mz", "nw", "pt", "tc", "wb")


@dataclass(frozen=True)
class CoreferenceConfig:
    """Sizes and limits; the defaults are those of the Longformer paper and the code it builds on (Joshi et al. 2019).

    Raises:
        ValueError: a value is out of range; the message names the field.
    """

    kind: Kind = "coarse_to_fine"
    """That of the paper, or that of Kirstain et al. 2021, which needs no representation of spans."""
    max_span_tokens: int = 30
    spans_per_word: float = 0.4
    """How many spans of a document are kept as mentions, for every word of it, rounded up."""
    max_spans: int = 3900
    """The most that are kept."""
    max_antecedents: int = 50
    """Of these each span selects the one that it refers to; the start-to-end model compares with all before it."""
    scorings: int = 2
    """How often the coarse-to-fine model scores antecedents (`coref_depth` of the published code); before each time but
    the first, spans take up what their antecedents tell."""
    head_size: int = 3000
    """Inner width of the scorers."""
    feature_size: int = 20
    """Width of what stands for widths, distances, speakers and genres."""
    dropout: float = 0.3
    genres: tuple[str, ...] = ONTONOTES_GENRES
    mention_loss: float = 1.0
    """How much it counts in the loss whether spans are mentions at all; 0: only what they refer to is learned."""
    singletons: bool = False
    """Whether mentions are found that nothing else refers to."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "genres", tuple(self.genres))
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be {' or '.join(get_args(Kind))}, got {self.kind}")
        for name in ("max_span_tokens", "max_spans", "max_antecedents", "scorings", "head_size", "feature_size"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.spans_per_word > 0:
            raise ValueError(f"spans_per_word must be positive, got {self.spans_per_word}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {self.dropout}")

    @classmethod
    def of(cls, config: Any) -> Self:
        """Returns what a model's config tells; what it does not tell is as by default.

        Raises:
            LongformerError: it tells of something else.
        """
        try:
            return cls(**(config.coreference or {}))
        except (TypeError, ValueError) as error:
            raise LongformerError(f"coreference of config.json describes no such model: {error}") from None
