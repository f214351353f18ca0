"""What a model that finds coreference is made of besides its encoder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from longformer.errors import LongformerError

KEY = "coreference"
"""Where a model's config.json tells of it."""
ONTONOTES_GENRES = ("bc", "bn", "mz", "nw", "pt", "tc", "wb")


@dataclass(frozen=True)
class CoreferenceConfig:
    """Sizes and limits; the defaults are those of the Longformer paper and the code it builds on (Joshi et al. 2019).

    Raises:
        ValueError: a value is out of range; the message names the field.
    """

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
    singletons: bool = False
    """Whether mentions are learned, and found, that nothing else refers to."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "genres", tuple(self.genres))
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
        told = config.other.get(KEY, {})
        try:
            return cls(**told)
        except (TypeError, ValueError) as error:
            raise LongformerError(f"{KEY} of config.json describes no such model: {error}") from None

    def added_to(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the `other` keys of a model's config with this among them."""
        return {**other, KEY: {**asdict(self), "genres": list(self.genres)}}
