"""Both models of coreference in plain words: every span, every pair, one document at a time, and nothing factored."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Spans = list[tuple[int, int]]


def greedy(scored: list[tuple[float, tuple[int, int]]], wanted: int) -> Spans:
    """Return the best spans, one after the other, unless one crosses a span that is taken, in the order of the text."""
    taken: Spans = []
    for _, (first, last) in sorted(scored, key=lambda each: -each[0]):
        if len(taken) < wanted and not any(a < first <= b < last or first < a <= last < b for a, b in taken):
            taken.append((first, last))
    return sorted(taken)


def possible_spans(words: list[int], sentences: list[int], most: int) -> Spans:
    tokens = len(words)
    return [
        (first, last)
        for first in range(tokens)
        for last in range(first, min(tokens, first + most))
        if (first == 0 or words[first - 1] != words[first])
        and (last == tokens - 1 or words[last + 1] != words[last])
        and sentences[first] == sentences[last]
    ]


def distance_range(distance: int) -> int:
    """Return the bucket of Lee et al. 2018: 0, 1, 2, 3, 4, 5-7, 8-15, 16-31, 32-63, 64+."""
    return distance if distance <= 4 else min(9, distance.bit_length() + 2)


def marginal_loss(scores: list[list[tuple[int, Tensor]]], clusters: list[int | None]) -> Tensor:
    """Return the loss of one document, given the antecedents of every span and their scores."""
    total = torch.zeros((), dtype=torch.float64)
    for cluster, row in zip(clusters, scores, strict=True):
        chances = torch.stack([torch.zeros((), dtype=torch.float64), *(score for _, score in row)]).softmax(0)
        right = [place for place, (of, _) in enumerate(row, 1) if cluster is not None and clusters[of] == cluster]
        total = total - chances[right or [0]].sum().log()
    return total


class Oracle:
    """Computes what a model finds in one document, from the model's own weights."""

    def __init__(self, model: Any) -> None:
        self.own, self.head, self.encoder = model.own, model.coreference, model.longformer

    def document(self, arrays: dict[str, Any]) -> tuple[Spans, list[float], list[int], Tensor]:
        """Return the spans that are kept, their mention scores and antecedents, and the loss."""
        words, sentences, speakers = (arrays[name].tolist() for name in ("word_ids", "sentence_ids", "speaker_ids"))
        segments = [self.encoder(torch.tensor(ids)[None]).last_hidden_state[0] for ids in arrays["input_ids"]]
        hidden = torch.cat(segments)[torch.tensor(arrays["token_positions"])]
        spans = possible_spans(words, sentences, self.own.max_span_tokens)
        wanted = min(self.own.max_spans, -(-len(set(words)) * 2 // 5))
        assert self.own.spans_per_word == 0.4
        cluster_of = {(first, last): cluster for first, last, cluster in arrays["labels"].tolist()}
        gold = cluster_of if self.own.mention_loss else {}
        ranks = ((math.inf if span in gold else float(self.mention(hidden, span).detach()), span) for span in spans)
        scored = sorted(ranks, reverse=True)[: 2 * wanted]
        kept = greedy(scored, wanted)
        mentions = [self.mention(hidden, span) for span in kept]
        pairs = self.pairs(hidden, kept, mentions, [speakers[first] for first, _ in kept], int(arrays["genre"]))
        clusters = [cluster_of.get(span) for span in kept]
        loss = marginal_loss(pairs, clusters)
        for mention, cluster in zip(mentions, clusters, strict=True):
            signed = mention if cluster is not None else -mention
            loss = loss - self.own.mention_loss * functional.logsigmoid(signed)
        best = [max(((score, of) for of, score in row), default=(-1.0, -1)) for row in pairs]
        return kept, [float(each) for each in mentions], [of if score > 0 else -1 for score, of in best], loss

    def mention(self, hidden: Tensor, span: tuple[int, int]) -> Tensor:
        raise NotImplementedError

    def pairs(
        self, hidden: Tensor, spans: Spans, mentions: list[Tensor], speakers: list[int], genre: int
    ) -> list[list[tuple[int, Tensor]]]:
        raise NotImplementedError


class StartToEndOracle(Oracle):
    """Kirstain et al. 2021, section 3, with products divided by the root of their width."""

    def mention(self, hidden: Tensor, span: tuple[int, int]) -> Tensor:
        head, (first, last) = self.head, span
        start, end = head.mention_start(hidden[first]), head.mention_end(hidden[last])
        joint = head.joint_score.weight @ start + head.joint_score.bias
        return (head.start_score(start) + head.end_score(end)).squeeze() + joint @ end / math.sqrt(len(end))

    def pairs(
        self, hidden: Tensor, spans: Spans, mentions: list[Tensor], speakers: list[int], genre: int
    ) -> list[list[tuple[int, Tensor]]]:
        both = [torch.cat([self.head.start(hidden[first]), self.head.end(hidden[last])]) for first, last in spans]
        return [
            [(of, mentions[i] + mentions[of] + self.pair(both[i], both[of])) for of in range(i)]
            for i in range(len(spans))
        ]

    def pair(self, one: Tensor, other: Tensor) -> Tensor:
        return self.head.pair_score(one) @ other / math.sqrt(len(one))


class CoarseToFineOracle(Oracle):
    """Lee et al. 2018 with the features of the published code."""

    def state(self, hidden: Tensor, span: tuple[int, int]) -> Tensor:
        first, last = span
        inside = hidden[first : last + 1]
        average = self.head.token_weight(inside).squeeze(1).softmax(0) @ inside
        return torch.cat([hidden[first], hidden[last], average, self.head.span_width.weight[last - first]])

    def mention(self, hidden: Tensor, span: tuple[int, int]) -> Tensor:
        scorer, prior = self.head.mention, self.head.width_prior
        weight = torch.cat([each.weight for each in (scorer.start, scorer.end, scorer.average, scorer.width)], 1)
        score = (
            weight @ self.state(hidden, span) + scorer.start.bias
        ).relu() @ scorer.output + scorer.output_bias.squeeze()
        return score + prior.output(prior.dense(prior.table.weight[span[1] - span[0]]).relu()).squeeze()

    def pairs(
        self, hidden: Tensor, spans: Spans, mentions: list[Tensor], speakers: list[int], genre: int
    ) -> list[list[tuple[int, Tensor]]]:
        head = self.head
        states = [self.state(hidden, span) for span in spans]
        antecedents: list[list[tuple[int, Tensor]]] = []
        for i in range(len(spans)):
            row = []
            for of in range(i):
                prior = head.distance_score(head.distance_prior.weight[distance_range(i - of)]).squeeze()
                row.append((of, mentions[i] + mentions[of] + head.coarse(states[i]) @ states[of] + prior))
            antecedents.append(sorted(row, key=lambda each: -float(each[1]))[: self.own.max_antecedents])
        scores: list[list[tuple[int, Tensor]]] = []
        for turn in range(self.own.scorings):
            if turn:
                states = self.refined(states, scores)
            scores = [
                [(of, coarse + self.fine(i, of, states, speakers, genre)) for of, coarse in row]
                for i, row in enumerate(antecedents)
            ]
        return scores

    def fine(self, i: int, of: int, states: list[Tensor], speakers: list[int], genre: int) -> Tensor:
        head, scorer = self.head, self.head.pair
        features = [
            head.same_speaker.weight[int(speakers[i] == speakers[of] > 0)],
            head.distance.weight[distance_range(i - of)],
            head.genre.weight[genre],
        ]
        pair = torch.cat([states[i], states[of], states[i] * states[of], *features])
        weight = torch.cat([scorer.span.weight, scorer.antecedent.weight, scorer.product, scorer.features], 1)
        return (weight @ pair + scorer.span.bias).relu() @ scorer.output + scorer.output_bias.squeeze()

    def refined(self, states: list[Tensor], scores: list[list[tuple[int, Tensor]]]) -> list[Tensor]:
        found = []
        for own, row in zip(states, scores, strict=True):
            chances = torch.stack([torch.zeros_like(own[0]), *(score for _, score in row)]).softmax(0)
            expected = chances @ torch.stack([own, *(states[of] for of, _ in row)])
            gate = self.head.gate(torch.cat([own, expected])).sigmoid()
            found.append(gate * expected + (1 - gate) * own)
        return found
