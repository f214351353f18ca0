"""Longformer with a head that reads several texts of one example: choices, or windows of a text behind candidates."""

from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.models.common.inputs import BatchFacts, input_shape
from longformer.models.common.outputs import EncoderOutput, HeadOutput
from longformer.models.common.token_loss import IGNORED
from longformer.models.longformer import global_attention
from longformer.models.longformer.config import LongformerConfig
from longformer.models.longformer.heads import ModelWithHead, head_output, mean_cross_entropy
from longformer.models.longformer.model import EncoderInputs


class ModelOfSeveralTexts(ModelWithHead):
    """Reads several texts of every example; all inputs have one more dimension, (batch, texts, ...).

    A text without any token is none: it is not read.
    """

    def facts(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> BatchFacts:
        is_text = texts_that_are(input_ids, attention_mask, inputs.get("inputs_embeds"))
        index = is_text.flatten().nonzero().squeeze(1)
        given = (only_texts(each, index) for each in (input_ids, attention_mask, global_attention_mask))
        named = {
            name: only_texts(inputs.get(name), index) for name in ("token_type_ids", "position_ids", "inputs_embeds")
        }
        return replace(super().facts(*given, **named), texts=index.shape[0])

    def encoded(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        global_attention_mask: Tensor | None,
        *,
        positions: Tensor | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> tuple[EncoderOutput, Tensor, Tensor]:
        """Returns what the encoder makes of the texts that are there, which are (batch, texts) bool, and their places
        among all, (count,) long.

        Args:
            positions: (batch, places) long; the last hidden state is that of these positions of every text alone,
                (count * places, hidden_size).
            inputs: as in `LongformerModel.forward`, as are the other arguments.
        """
        is_text = texts_that_are(input_ids, attention_mask, inputs.get("inputs_embeds"))
        facts = inputs.pop("facts", None)
        if facts is None:
            facts = self.facts(input_ids, attention_mask, global_attention_mask, **inputs)
        index = is_text.flatten().nonzero_static(size=facts.texts).squeeze(1)
        input_ids, attention_mask, global_attention_mask = (
            only_texts(tensor, index) for tensor in (input_ids, attention_mask, global_attention_mask)
        )
        for name in ("token_type_ids", "position_ids", "inputs_embeds"):
            if name in inputs:
                inputs[name] = only_texts(inputs[name], index)
        if global_attention_mask is None:
            global_attention_mask = self.default_globals(input_ids, attention_mask, inputs.get("inputs_embeds"))
        output_positions = None
        if positions is not None:
            (_, length), _ = input_shape(input_ids, inputs.get("inputs_embeds"))
            rows = torch.arange(facts.texts, device=index.device)[:, None]
            output_positions = (length * rows + positions[index // is_text.shape[1]]).flatten()
        encoded = self.longformer(
            input_ids, attention_mask, global_attention_mask, output_positions=output_positions, facts=facts, **inputs
        )
        return encoded, is_text, index


class LongformerForMultipleChoice(ModelOfSeveralTexts):
    """Chooses between texts; what follows the two separators in the middle is global by default."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config, add_pooling_layer=True)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.initialise()

    def default_globals(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
    ) -> Tensor | None:
        if input_ids is None:
            return None
        return global_attention.second_text(input_ids, self.config.sep_token_id, attention_mask)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> HeadOutput:
        """Returns logits (batch, choices) and, given labels (batch,) long, the loss.

        All inputs are as in `LongformerModel.forward` with one more dimension, (batch, choices, ...). A text without
        any token is no choice: its logit is minus infinity.

        Raises:
            LongformerError: no global mask is given and the ids do not show where the choice begins.
        """
        encoded, is_choice, index = self.encoded(input_ids, attention_mask, global_attention_mask, **inputs)
        scores = self.classifier(self.dropout(encoded.pooler_output)).squeeze(-1)
        logits = scores.new_full((is_choice.numel(),), -torch.inf).index_copy(0, index, scores).view_as(is_choice)
        return head_output(encoded, None if labels is None else functional.cross_entropy(logits, labels), logits)


class LongformerForCandidateSelection(ModelOfSeveralTexts):
    """Selects one of several candidates that stand before a text, as in the Longformer paper's WikiHop; a longer text
    is read in windows, each behind all candidates. What is global has to be said.
    """

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.candidate_score = nn.Linear(config.hidden_size, 1, bias=False)
        self.initialise()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        candidate_positions: Tensor,
        window_weights: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> HeadOutput:
        """Returns logits (batch, candidates) and, given labels (batch,) long, the loss.

        All inputs are as in `LongformerModel.forward` with one more dimension, (batch, windows, ...). A window without
        any token is none.

        Args:
            candidate_positions: (batch, candidates) long: where each candidate is scored, the same in all windows; -1
                where there is none, whose logit is minus infinity.
            window_weights: (batch, windows) float: how much the scores of each window count in their sum; None: it is
                the mean over the windows.
            labels: the number of the right candidate; -100 does not count.
        """
        encoded, is_window, index = self.encoded(
            input_ids, attention_mask, global_attention_mask, positions=candidate_positions.clamp(min=0), **inputs
        )
        batch, windows = is_window.shape
        scores = self.candidate_score(encoded.last_hidden_state).view(len(index), -1)
        scores = scores.new_zeros(batch * windows, scores.shape[1]).index_copy(0, index, scores)
        if window_weights is None:
            window_weights = is_window / is_window.sum(1, keepdim=True)
        logits = (scores.view(batch, windows, -1) * window_weights.to(scores.dtype)[:, :, None]).sum(1)
        logits = logits.masked_fill(candidate_positions < 0, -torch.inf)
        loss = None if labels is None else mean_cross_entropy(logits, labels, ignored=IGNORED)
        return head_output(encoded, loss, logits)


def texts_that_are(input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """Returns which of all (batch, texts) texts hold a token, (batch, texts) bool.

    Raises:
        ValueError: there are neither ids nor embeddings.
    """
    given = inputs_embeds if input_ids is None else input_ids
    if given is None:
        raise ValueError("give either input_ids or inputs_embeds")
    if attention_mask is None:
        return torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
    return (attention_mask != 0).any(-1)


def only_texts(tensor: Tensor | None, index: Tensor) -> Tensor | None:
    """Merges the dimensions (batch, texts, ...) into one, of the texts that are there."""
    return None if tensor is None else tensor.flatten(0, 1).index_select(0, index)
