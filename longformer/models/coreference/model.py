"""Longformer with a head that clusters what a document mentions."""

import math
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn import functional

from longformer.models.common.inputs import BatchFacts
from longformer.models.common.outputs import ModelOutput
from longformer.models.coreference.coarse_to_fine import CoarseToFineHead
from longformer.models.coreference.config import CoreferenceConfig
from longformer.models.coreference.head import AntecedentScores
from longformer.models.coreference.spans import Documents, cluster_table, wanted_spans
from longformer.models.coreference.start_to_end import StartToEndHead
from longformer.models.longformer.config import LongformerConfig
from longformer.models.longformer.model import EncoderInputs
from longformer.models.longformer.several_texts import ModelOfSeveralTexts

HEADS = {"coarse_to_fine": CoarseToFineHead, "start_to_end": StartToEndHead}


@dataclass
class CoreferenceOutput(ModelOutput):
    """Result of `LongformerForCoreference`."""

    loss: Tensor | None = None
    """(), there when labels were given."""
    spans: Tensor | None = None
    """(batch, spans, 2) long: first and last token of what may be mentions, in the order of the text; -1 where there is
    none."""
    mention_scores: Tensor | None = None
    """(batch, spans); a span that nothing else refers to is a mention where this is positive, if the model has learned
    such ones."""
    antecedents: Tensor | None = None
    """(batch, spans) long: the number of the span before that each refers to; -1: to none."""


class LongformerForCoreference(ModelOfSeveralTexts):
    """Finds the mentions of documents and which of them are of the same thing; no token is global by default.

    A document is read in one or several texts, see `longformer.inference.segments`. Which head it has, and its shape,
    is told by the config's `coreference`, see `CoreferenceConfig`.
    """

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.own = CoreferenceConfig.of(config)
        self.coreference = HEADS[self.own.kind](config.hidden_size, self.own)
        self.initialise()

    def facts(self, *given: Tensor | None, word_ids: Tensor | None = None, **inputs: Any) -> BatchFacts:
        facts = super().facts(*given, **inputs)
        if word_ids is None or not word_ids.numel():
            return replace(facts, spans=1)
        return replace(facts, spans=max(1, int(self._wanted_spans(word_ids).max())))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        token_positions: Tensor,
        word_ids: Tensor,
        sentence_ids: Tensor,
        speaker_ids: Tensor,
        genre: Tensor,
        labels: Tensor | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> CoreferenceOutput:
        """Returns the mentions of documents and, given labels, the loss.

        The loss is the mean over documents of the sum over spans of -log of the probability of all right antecedents
        together (Lee et al. 2018), and `mention_loss` times the binary cross-entropy of being a mention. Where that
        counts, all mentions are among the spans while they are learned: a model could else avoid its loss by never
        keeping them, as it does with few documents. A document without tokens does not count.

        Args:
            input_ids, attention_mask, global_attention_mask, inputs: as in `LongformerModel.forward` with one more
                dimension, (batch, texts, ...). A text without any token is none.
            token_positions: (batch, tokens) long: where each token of the document is read, counted through its texts;
                special ones are none of its tokens. -1 behind the last, as in the next three.
            word_ids: (batch, tokens) long: the word that it is of.
            sentence_ids: (batch, tokens) long: the sentence that it is in.
            speaker_ids: (batch, tokens) long: who says it, 0 where unknown.
            genre: (batch,) long: 1 + the number of the genre, 0 where unknown.
            labels: (batch, mentions, 3) long: first and last token and number of the cluster of every mention, -1
                behind the last.
        """
        if inputs.get("facts") is None:
            inputs["facts"] = self.facts(
                input_ids, attention_mask, global_attention_mask, word_ids=word_ids, **{**inputs, "facts": None}
            )
        facts = inputs["facts"]
        assert facts is not None
        encoded, is_text, _ = self.encoded(input_ids, attention_mask, global_attention_mask, **inputs)
        if not word_ids.shape[1]:  # the layers of the head want at least one token, if only padding
            token_positions, word_ids, sentence_ids, speaker_ids = (
                functional.pad(each, (0, 1), value=-1)
                for each in (token_positions, word_ids, sentence_ids, speaker_ids)
            )
        hidden = _states_of_tokens(encoded.last_hidden_state, is_text, token_positions)
        documents = Documents(word_ids, sentence_ids, speaker_ids, genre)
        clusters = None
        if labels is not None:
            clusters = cluster_table(labels, word_ids.shape[1], self.own.max_span_tokens)
        learned = clusters if self.own.mention_loss else None
        spans, found = self.coreference(hidden, documents, self._wanted_spans(word_ids), facts.spans, learned)
        loss = None
        if clusters is not None:
            of_spans = clusters.gather(1, spans.numbers) * spans.exist
            losses = antecedent_losses(found, of_spans)
            if self.own.mention_loss:
                losses = losses + self.own.mention_loss * _mention_losses(found.mentions, of_spans > 0, spans.exist)
            loss = losses.sum() / (word_ids >= 0).any(1).sum().clamp(min=1)
        best, places = found.scores.max(2)
        chosen = found.antecedents.gather(2, places[:, :, None]).squeeze(2)
        return CoreferenceOutput(
            loss,
            torch.stack([spans.firsts, spans.lasts], 2).masked_fill(~spans.exist[:, :, None], -1),
            found.mentions.masked_fill(~spans.exist, -math.inf),
            chosen.masked_fill(best <= 0, -1),
        )

    def _wanted_spans(self, word_ids: Tensor) -> Tensor:
        return wanted_spans(word_ids, self.own.spans_per_word, self.own.max_spans)


def antecedent_losses(found: AntecedentScores, clusters: Tensor) -> Tensor:
    """Returns -log of the probability of all right antecedents together, summed over the spans of a document.

    Args:
        found: scores of spans and antecedents.
        clusters: (batch, spans) long, see `cluster_table`. A span without a right antecedent refers to nothing.

    Returns:
        (batch,).
    """
    of_antecedents = clusters.gather(1, found.antecedents.flatten(1)).view_as(found.antecedents)
    is_right = (of_antecedents == clusters[:, :, None]) & (clusters[:, :, None] > 0) & (found.scores > -math.inf)
    of_nothing = found.scores.new_zeros(*found.scores.shape[:2], 1)
    right = torch.cat(
        [
            of_nothing.masked_fill(is_right.any(2, keepdim=True), -math.inf),
            found.scores.masked_fill(~is_right, -math.inf),
        ],
        2,
    )
    return (torch.cat([of_nothing, found.scores], 2).logsumexp(2) - right.logsumexp(2)).sum(1)


def _mention_losses(scores: Tensor, is_mention: Tensor, exist: Tensor) -> Tensor:
    losses = functional.binary_cross_entropy_with_logits(scores, is_mention.to(scores.dtype), reduction="none")
    return (losses * exist).sum(1)


def _states_of_tokens(hidden: Tensor, is_text: Tensor, positions: Tensor) -> Tensor:
    """Returns the states of the tokens of documents, (batch, tokens, width); of padding any.

    Args:
        hidden: (texts that are there, length, width).
        is_text: (batch, texts) bool.
        positions: (batch, tokens) long, counted through the texts of a document.
    """
    positions, length = positions.clamp(min=0), hidden.shape[1]
    numbers = is_text.flatten().cumsum(0).view_as(is_text) - 1
    rows = numbers.gather(1, positions // length).clamp(min=0)
    return functional.embedding(rows * length + positions % length, hidden.flatten(0, 1))
