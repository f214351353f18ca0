"""The start-to-end model of coreference (Kirstain et al. 2021): spans have no representation, they are scored by those
of their first and their last token. Memory grows with the spans that are kept, and with their pairs by a number each.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.models.coreference.config import CoreferenceConfig
from longformer.models.coreference.head import AntecedentScores, CoreferenceHead, precise
from longformer.models.coreference.spans import Documents, Spans, of_tokens

STARTS = 64
"""How many tokens are compared at a time with those that spans may end with."""


class StartToEndHead(CoreferenceHead):
    """Scores a span by its first token, its last one, and both together; and so pairs of spans. Speakers and genres are
    not used, nor is a limit of antecedents.

    Products are divided by the root of their width, as in attention: what represents tokens is normalised, so fresh
    weights would else give scores of hundreds (the published code begins there, with 5,600 steps of warm-up).
    """

    def __init__(self, width: int, own: CoreferenceConfig) -> None:
        super().__init__(own)
        size = own.head_size
        self.mention_start = Representation(width, size)
        self.mention_end = Representation(width, size)
        self.start_score = nn.Linear(size, 1)
        self.end_score = nn.Linear(size, 1)
        self.joint_score = nn.Linear(size, size)
        self.start = Representation(width, size)
        self.end = Representation(width, size)
        self.pair_score = nn.Linear(2 * size, 2 * size)
        self.dropout = nn.Dropout(own.dropout)

    def candidate_scores(self, hidden: Tensor) -> Tensor:
        starts, ends = self.mention_start(hidden), self.mention_end(hidden)
        most = self.own.max_span_tokens
        of_ends = functional.pad(precise(self.end_score(ends)).squeeze(2), (0, most - 1)).unfold(1, most, 1)
        return (
            precise(self.start_score(starts))
            + of_ends
            + precise(near_products(self._scaled(self.joint_score(starts)), ends, most))
        )

    def scores(self, hidden: Tensor, spans: Spans, documents: Documents) -> AntecedentScores:
        first, last = of_tokens(hidden, spans.firsts), of_tokens(hidden, spans.lasts)
        starts, ends = self.dropout(self.mention_start(first)), self.dropout(self.mention_end(last))
        joint = precise(self._scaled(self.joint_score(starts)) * ends).sum(2, keepdim=True)
        mentions = (precise(self.start_score(starts)) + precise(self.end_score(ends)) + joint).squeeze(2)

        both = torch.cat([self.dropout(self.start(first)), self.dropout(self.end(last))], 2)
        scores = precise(self._scaled(self.pair_score(both)) @ both.mT) + mentions[:, :, None] + mentions[:, None]
        numbers = torch.arange(scores.shape[1], device=scores.device)
        may_be = (numbers < numbers[:, None]) & spans.exist[:, :, None] & spans.exist[:, None]
        return AntecedentScores(mentions, numbers.expand_as(scores), scores.masked_fill(~may_be, -math.inf))

    @staticmethod
    def _scaled(vectors: Tensor) -> Tensor:
        """Returns vectors, (..., width), whose products with others are to be of the size of their numbers."""
        return vectors / math.sqrt(vectors.shape[-1])


class Representation(nn.Module):
    """Makes of the state of a token what represents it at one end of a span."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, size)
        self.layer_norm = nn.LayerNorm(size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns (..., size) of (..., width)."""
        represented: Tensor = self.layer_norm(functional.gelu(self.dense(hidden)))
        return represented


def near_products(left: Tensor, right: Tensor, most: int) -> Tensor:
    """Returns the products of every token with itself and those behind it, (batch, tokens, most).

    Args:
        left, right: (batch, tokens, size).
        most: how many tokens each is multiplied with; beyond the last one the product is 0.
    """
    tokens = left.shape[1]
    room = -tokens % STARTS
    left = functional.pad(left, (0, 0, 0, room)).unflatten(1, (-1, STARTS))
    right = functional.pad(right, (0, 0, 0, room + most - 1)).unfold(1, STARTS + most - 1, STARTS)
    positions = torch.arange(STARTS, device=left.device)[:, None] + torch.arange(most, device=left.device)
    products = (left @ right).gather(3, positions.expand(*left.shape[:3], -1))
    return products.flatten(1, 2)[:, :tokens]
