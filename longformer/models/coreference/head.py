"""What both heads for coreference share: they choose spans, and score them and what each may refer to."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longformer.models.coreference.config import CoreferenceConfig
from longformer.models.coreference.spans import Documents, Spans, candidates, kept_spans


class AntecedentScores(NamedTuple):
    """How likely spans are mentions, and which of those before they refer to."""

    mentions: Tensor
    """(batch, spans)."""
    antecedents: Tensor
    """(batch, spans, antecedents) long: the numbers of some spans."""
    scores: Tensor
    """(batch, spans, antecedents): of each; minus infinity where it is none. To refer to nothing scores 0."""


class CoreferenceHead(nn.Module, ABC):
    """Scores spans and their antecedents, given the states of a document's tokens.

    Only spans that are kept have a gradient (as in Lee et al. 2018). So all spans are scored without one, and without
    dropout, and those that are kept once more.
    """

    def __init__(self, own: CoreferenceConfig) -> None:
        super().__init__()
        self.own = own

    def forward(
        self, hidden: Tensor, documents: Documents, wanted: Tensor, count: int, clusters: Tensor | None
    ) -> tuple[Spans, AntecedentScores]:
        """Returns the spans that are kept as mentions, and their scores.

        Args:
            hidden: (batch, tokens, width).
            documents: say where spans may be.
            wanted, count: as in `kept_spans`.
            clusters: as `cluster_table` gives them: what is a mention there is kept whatever its score; or None.
        """
        with torch.no_grad():
            scores = self.candidate_scores(hidden)
            is_candidate = candidates(documents, self.own.max_span_tokens)
            if clusters is not None:
                scores = scores.masked_fill((clusters > 0).view_as(scores), math.inf)
            spans = kept_spans(scores.masked_fill(~is_candidate, -math.inf), wanted, count)
        return spans, self.scores(hidden, spans, documents)

    @abstractmethod
    def candidate_scores(self, hidden: Tensor) -> Tensor:
        """Returns how likely all spans are mentions, (batch, tokens, most tokens of a span), without dropout."""

    @abstractmethod
    def scores(self, hidden: Tensor, spans: Spans, documents: Documents) -> AntecedentScores:
        """Returns the scores of spans."""


def precise(scores: Tensor) -> Tensor:
    """Returns scores in float32 or better: they are compared with each other and added up."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
