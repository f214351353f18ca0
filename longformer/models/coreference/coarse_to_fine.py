"""The coarse-to-fine model of coreference (Lee et al. 2018, as changed by Joshi et al. 2019), with which the Longformer
paper does OntoNotes.

Layers over several vectors side by side are sums of layers over each, so that what belongs to a token is computed once
for all spans. Pairs of spans are scored a chunk at a time, and for backward once more.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from longformer.models.coreference.config import CoreferenceConfig
from longformer.models.coreference.head import AntecedentScores, CoreferenceHead, precise
from longformer.models.coreference.spans import Documents, Spans, of_tokens, through_documents

STARTS, PAIRS = 128, 4096
"""How many tokens, with the spans that begin there, and how many pairs of spans are scored at a time.

In the published sizes a chunk's tensors then have more than 32 MiB: smaller ones that glibc frees would leave holes
between others (see `longformer.cpu.residual`), several GiB in all.
"""
DISTANCES = (1, 2, 3, 4, 5, 8, 16, 32, 64)
"""Where, counted in spans, another range of distances begins."""


class CoarseToFineHead(CoreferenceHead):
    """Represents spans by their first, last and average token, the latter weighed by attention, and by their width."""

    def __init__(self, width: int, own: CoreferenceConfig) -> None:
        super().__init__(own)
        size, ranges = 3 * width + own.feature_size, len(DISTANCES) + 1
        self.token_weight = nn.Linear(width, 1, bias=False)
        self.span_width = nn.Embedding(own.max_span_tokens, own.feature_size)
        self.mention = MentionScorer(width, own)
        self.width_prior = WidthPrior(own)
        self.coarse = nn.Linear(size, size)
        self.distance_prior = nn.Embedding(ranges, own.feature_size)
        self.distance_score = nn.Linear(own.feature_size, 1)
        self.same_speaker = nn.Embedding(2, own.feature_size)
        self.distance = nn.Embedding(ranges, own.feature_size)
        self.genre = nn.Embedding(len(own.genres) + 1, own.feature_size)
        self.pair = PairScorer(size, own)
        self.gate = nn.Linear(2 * size, size)
        self.dropout = nn.Dropout(own.dropout)

    def candidate_scores(self, hidden: Tensor) -> Tensor:
        widths = torch.arange(self.own.max_span_tokens, device=hidden.device)
        scores = self.mention(hidden, hidden, hidden, self.span_width(widths), self._token_weights(hidden))
        return precise(scores) + self.width_prior(widths)

    def scores(self, hidden: Tensor, spans: Spans, documents: Documents) -> AntecedentScores:
        states, mentions = self._states(hidden, spans)
        coarse, antecedents = self._coarse_scores(states, mentions, spans.exist)
        features = self._features(spans, documents, antecedents)
        scores = coarse + self.pair(states, antecedents, features)
        for _ in range(self.own.scorings - 1):
            states = self._refined(states, antecedents, scores)
            scores = coarse + self.pair(states, antecedents, features)
        return AntecedentScores(mentions, antecedents, scores)

    def _token_weights(self, hidden: Tensor) -> Tensor:
        """Returns how much each token weighs in the average of a span, as logits, (batch, tokens)."""
        return precise(self.token_weight(hidden)).squeeze(2)

    def _states(self, hidden: Tensor, spans: Spans) -> tuple[Tensor, Tensor]:
        """Returns what represents spans, (batch, spans, size), and how likely they are mentions, (batch, spans)."""
        widths = spans.lasts - spans.firsts
        start, end = of_tokens(hidden, spans.firsts), of_tokens(hidden, spans.lasts)
        average = self._averages(hidden, spans)
        width = self.dropout(self.span_width(widths))
        mentions = precise(self.mention(start, end, average, width)) + self.width_prior(widths)
        return torch.cat([start, end, average, width], 2), mentions

    def _averages(self, hidden: Tensor, spans: Spans) -> Tensor:
        """Returns the average states of the tokens of spans, weighed by attention, (batch, spans, width)."""
        positions = spans.firsts[..., None] + torch.arange(self.own.max_span_tokens, device=hidden.device)
        inside = positions.clamp(max=hidden.shape[1] - 1)
        weights = of_tokens(self._token_weights(hidden)[..., None], inside).squeeze(3)
        weights = shares(weights, spans.firsts[..., None], spans.lasts[..., None], positions)
        averages = functional.embedding_bag(
            through_documents(inside, hidden.shape[1]).flatten(0, 1),
            hidden.flatten(0, 1),
            per_sample_weights=weights.to(hidden.dtype).flatten(0, 1),
            mode="sum",
        )
        return averages.unflatten(0, spans.firsts.shape)

    def _coarse_scores(self, states: Tensor, mentions: Tensor, exist: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the best antecedents by the coarse scores, and these, minus infinity where there are fewer: both
        (batch, spans, antecedents)."""
        numbers = torch.arange(mentions.shape[1], device=mentions.device)
        distances = numbers[:, None] - numbers
        ranges = self.distance_prior(torch.arange(len(DISTANCES) + 1, device=mentions.device))
        of_ranges = precise(self.distance_score(self.dropout(ranges)))
        prior = functional.embedding(ranges_of(distances), of_ranges).squeeze(2)
        scores = precise(self.dropout(self.coarse(states)) @ self.dropout(states).mT)
        scores = scores + mentions[:, :, None] + mentions[:, None] + prior
        may_be = (distances > 0) & exist[:, :, None] & exist[:, None]
        return scores.masked_fill(~may_be, -math.inf).topk(min(self.own.max_antecedents, len(numbers)))

    def _features(self, spans: Spans, documents: Documents, antecedents: Tensor) -> Tensor:
        """Returns what is known of pairs besides their text, (batch, spans, antecedents, 3 * feature_size)."""
        numbers = torch.arange(antecedents.shape[1], device=antecedents.device)
        speakers = documents.speakers.gather(1, spans.firsts)
        of_antecedents = speakers.gather(1, antecedents.flatten(1)).view_as(antecedents)
        is_same = (speakers[:, :, None] == of_antecedents) & (of_antecedents > 0)
        parts = [
            self.same_speaker(is_same.long()),
            self.distance(ranges_of(numbers[:, None] - antecedents)),
            self.genre(documents.genre)[:, None, None].expand(*antecedents.shape, -1),
        ]
        return self.dropout(torch.cat(parts, 3))

    def _refined(self, states: Tensor, antecedents: Tensor, scores: Tensor) -> Tensor:
        """Returns the states of spans, in part replaced by the mean of those of what they may refer to."""
        # The first is that of referring to nothing, by which a span keeps its own state.
        chances = functional.pad(scores, (1, 0)).softmax(2)
        to_spans = scores.new_zeros(*states.shape[:2], states.shape[1]).scatter(2, antecedents, chances[..., 1:])
        expected = to_spans.to(states.dtype) @ states + chances[..., :1].to(states.dtype) * states
        replaced = self.gate(torch.cat([states, expected], 2)).sigmoid()
        return replaced * expected + (1 - replaced) * states


class MentionScorer(nn.Module):
    """Scores how likely spans are mentions: a hidden layer over their parts."""

    def __init__(self, width: int, own: CoreferenceConfig) -> None:
        super().__init__()
        self.start = nn.Linear(width, own.head_size)
        self.end = nn.Linear(width, own.head_size, bias=False)
        self.average = nn.Linear(width, own.head_size, bias=False)
        self.width = nn.Linear(own.feature_size, own.head_size, bias=False)
        # Its own parameter, since ZeRO 3 wants modules called equally often on all ranks, however long documents are.
        self.output = nn.Parameter(torch.empty(own.head_size))
        self.output_bias = nn.Parameter(torch.empty(1))
        self.dropout = own.dropout

    def forward(
        self, start: Tensor, end: Tensor, average: Tensor, width: Tensor, token_weights: Tensor | None = None
    ) -> Tensor:
        """Returns the scores of spans, (batch, spans), of whose parts each is (batch, spans, ...).

        Given `token_weights`, (batch, tokens) logits, returns those of all spans, (batch, tokens, most), without
        dropout; the parts are then those of every token, and `width` is (most, feature_size).
        """
        start, end, average, width = self.start(start), self.end(end), self.average(average), self.width(width)
        if token_weights is None:
            return self._output(
                functional.dropout(functional.relu(start + end + average + width), self.dropout, self.training)
            )
        batch, tokens = token_weights.shape
        most = len(width)
        step = max(1, STARTS // batch)
        room = -tokens % step
        start = functional.pad(start, (0, 0, 0, room))
        end, average = (functional.pad(each, (0, 0, 0, room + most - 1)) for each in (end, average))
        token_weights = functional.pad(token_weights, (0, room + most - 1))
        positions = torch.arange(step + most - 1, device=start.device)
        firsts = positions[:step, None]
        lasts = firsts + positions[:most]
        scores = token_weights.new_empty(batch, tokens + room, most)
        for first in range(0, tokens, step):
            window = slice(first, first + len(positions))
            weights = shares(token_weights[:, None, None, window], firsts[..., None], lasts[..., None], positions)
            parts = (weights.to(average.dtype).flatten(1, 2) @ average[:, window]).unflatten(1, lasts.shape)
            parts += start[:, first : first + step, None]
            parts += end[:, window].unfold(1, most, 1).mT
            parts += width
            scores[:, first : first + step] = self._output(parts.relu_())
        return scores[:, :tokens]

    def _output(self, hidden: Tensor) -> Tensor:
        return hidden @ self.output + self.output_bias


class WidthPrior(nn.Module):
    """Scores how likely a span is a mention by its width."""

    def __init__(self, own: CoreferenceConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(own.max_span_tokens, own.feature_size)
        self.dense = nn.Linear(own.feature_size, own.head_size)
        self.output = nn.Linear(own.head_size, 1)

    def forward(self, widths: Tensor) -> Tensor:
        """Returns scores of spans of `widths` tokens besides the first, (...) float of (...) long."""
        known = torch.arange(self.table.num_embeddings, device=widths.device)
        scores = precise(self.output(functional.relu(self.dense(self.table(known)))))
        return functional.embedding(widths, scores).squeeze(-1)


class PairScorer(nn.Module):
    """Scores pairs of spans: a hidden layer over both, their product and what is known of the pair."""

    def __init__(self, size: int, own: CoreferenceConfig) -> None:
        super().__init__()
        self.span = nn.Linear(size, own.head_size)
        self.antecedent = nn.Linear(size, own.head_size, bias=False)
        # Parameters of its own as in `MentionScorer`.
        self.product = nn.Parameter(torch.empty(own.head_size, size))
        self.features = nn.Parameter(torch.empty(own.head_size, 3 * own.feature_size))
        self.output = nn.Parameter(torch.empty(own.head_size))
        self.output_bias = nn.Parameter(torch.empty(1))
        self.dropout = own.dropout

    def forward(self, states: Tensor, antecedents: Tensor, features: Tensor) -> Tensor:
        """Returns the scores of spans, (batch, spans, size), with antecedents, (batch, spans, antecedents).

        Args:
            antecedents: (batch, spans, antecedents) long: numbers of spans.
            features: (batch, spans, antecedents, 3 * feature_size).
        """
        batch, count = states.shape[:2]
        rows = (antecedents + count * torch.arange(batch, device=states.device)[:, None, None]).flatten(0, 1)
        states, features = states.flatten(0, 1), features.flatten(0, 1)
        spans, of_antecedents = self.span(states), self.antecedent(states)
        step = max(1, PAIRS // rows.shape[1])
        chunks = zip(*(each.split(step) for each in (states, spans, rows, features)), strict=True)
        score = partial(checkpoint, self._chunk, use_reentrant=False) if torch.is_grad_enabled() else self._chunk
        scores = [score(states, of_antecedents, *chunk) for chunk in chunks]
        return precise(torch.cat(scores).view(antecedents.shape))

    def _chunk(
        self, states: Tensor, of_antecedents: Tensor, own: Tensor, spans: Tensor, rows: Tensor, features: Tensor
    ) -> Tensor:
        products = own[:, None] * functional.embedding(rows, states)
        hidden = functional.linear(products, self.product) + functional.linear(features, self.features)
        hidden = functional.relu(hidden + spans[:, None] + functional.embedding(rows, of_antecedents))
        return functional.dropout(hidden, self.dropout, self.training) @ self.output + self.output_bias


def shares(weights: Tensor, firsts: Tensor, lasts: Tensor, positions: Tensor) -> Tensor:
    """Returns the softmax of `weights` over the positions from the first to the last, 0 elsewhere; all broadcast."""
    return weights.masked_fill((positions < firsts) | (positions > lasts), -math.inf).softmax(-1)


def ranges_of(distances: Tensor) -> Tensor:
    """Returns the number of the range that each distance is in: 0 below DISTANCES[0], 1 below the next, and so on."""
    return torch.stack([distances >= each for each in DISTANCES]).sum(0)
