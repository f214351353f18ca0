"""Longformer with a head, under Hugging Face's names: for masked words, texts, tokens and answers."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.interop.families import LONGFORMER
from longformer.models.common.inputs import BatchFacts, input_shape
from longformer.models.common.outputs import EncoderOutput, HeadOutput, MultiHopOutput, QuestionAnsweringOutput
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.common.token_loss import IGNORED, TokenProjection, labelled, projected_loss
from longformer.models.longformer import global_attention
from longformer.models.longformer.config import LongformerConfig
from longformer.models.longformer.layers import of_first_token
from longformer.models.longformer.model import EncoderInputs, LongformerModel


class ModelWithHead(PretrainedModel):
    """The encoder as `longformer`, and a head that subclasses add before they call `initialise`."""

    family = LONGFORMER

    def __init__(self, config: LongformerConfig, *, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.longformer = LongformerModel(config, add_pooling_layer=add_pooling_layer)

    def facts(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> BatchFacts:
        if global_attention_mask is None:
            global_attention_mask = self.default_globals(input_ids, attention_mask, inputs.get("inputs_embeds"))
        return self.longformer.facts(input_ids, attention_mask, global_attention_mask, **inputs)

    def default_globals(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
    ) -> Tensor | None:
        """Returns the global mask of a batch for which none is given, (batch, positions) bool; None: no token is.

        Raises:
            LongformerError: the ids do not show what is to be global.
        """
        return None


class MaskedLMHead(nn.Module):
    """Turns hidden states into logits over the vocabulary, or into the loss of predicting tokens."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = TokenProjection(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.empty(config.vocab_size))

    def forward(self, hidden: Tensor, targets: Tensor | None = None) -> Tensor:
        """Returns logits (..., vocab_size), or the loss of `targets`, (count,) long, where hidden is (count, width)."""
        compared = self.layer_norm(functional.gelu(self.dense(hidden)))
        if targets is None:
            return self.decoder(compared) + self.bias
        return projected_loss(self.decoder, compared, targets, self.bias)


class LongformerForMaskedLM(ModelWithHead):
    """Predicts masked tokens; no token is global by default."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.lm_head = MaskedLMHead(config)
        self.tie_weights()
        self.initialise()

    def tie_weights(self) -> None:
        if self.config.tie_word_embeddings:
            self.lm_head.decoder.weight = self.longformer.embeddings.word_embeddings.weight

    def facts(self, *inputs: Any, labels: Tensor | None = None, **named: Any) -> BatchFacts:
        return self.longformer.facts(*inputs, labels=labels, **named)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        output_logits: bool | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> HeadOutput:
        """Returns logits (batch, positions, vocab_size) and, given labels, the loss.

        Args:
            labels: (batch, positions) long, -100 where nothing is to be predicted.
            output_logits: whether to compute the logits of all positions; None = only when no labels are given,
                because the loss needs but those of labelled positions, a few at a time.
            inputs: as in `LongformerModel.forward`, as are the other arguments.
        """
        wants_logits = labels is None if output_logits is None else output_logits
        positions = targets = None
        facts = inputs.pop("facts", None)
        if labels is not None:
            shape, _ = input_shape(input_ids, inputs.get("inputs_embeds"))
            if facts is None:
                facts = self.facts(input_ids, attention_mask, global_attention_mask, labels=labels, **inputs)
            facts.check_labels(self.config.vocab_size)
            positions, targets = labelled(labels, shape, facts.labelled)
        only = None if wants_logits or inputs.get("output_hidden_states") else positions
        encoded = self.longformer(
            input_ids, attention_mask, global_attention_mask, output_positions=only, facts=facts, **inputs
        )
        hidden, loss = encoded.last_hidden_state, None
        if positions is not None and targets is not None:
            states = hidden if only is not None else hidden.flatten(0, 1).index_select(0, positions)
            loss = self.lm_head(states, targets)
        return head_output(encoded, loss, self.lm_head(hidden) if wants_logits else None)


class ClassificationHead(nn.Module):
    """Classifies a text by its first token."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns (batch, num_labels); arguments as in `of_first_token`."""
        inner = torch.tanh(self.dense(self.dropout(of_first_token(hidden, attention_mask))))
        return self.out_proj(self.dropout(inner))


class LongformerForSequenceClassification(ModelWithHead):
    """Classifies whole texts; the first token is global by default."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.classifier = ClassificationHead(config)
        self.initialise()

    def default_globals(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
    ) -> Tensor | None:
        given = inputs_embeds if input_ids is None else input_ids
        return None if given is None else global_attention.first_token(given.shape[:2], attention_mask, given.device)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> HeadOutput:
        """Returns logits (batch, num_labels) and, given labels, the loss.

        Args:
            labels: (batch,) long for one class per text; (batch, num_labels) float for several classes per text;
                float for regression. `config.problem_type` decides where labels and num_labels do not.
            inputs: as in `LongformerModel.forward`, as are the other arguments.
        """
        if global_attention_mask is None:
            global_attention_mask = self.default_globals(input_ids, attention_mask, inputs.get("inputs_embeds"))
        encoded = self.longformer(input_ids, attention_mask, global_attention_mask, **inputs)
        logits = self.classifier(encoded.last_hidden_state, attention_mask)
        return head_output(encoded, None if labels is None else self._loss(logits, labels), logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        problem = self.config.problem_type
        if problem is None:
            if self.config.num_labels == 1:
                problem = "regression"
            else:
                problem = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        if problem == "regression":
            return functional.mse_loss(logits.squeeze(), labels.squeeze())
        if problem == "single_label_classification":
            return functional.cross_entropy(logits, labels.flatten())
        return functional.binary_cross_entropy_with_logits(logits, labels)


class LongformerForQuestionAnswering(ModelWithHead):
    """Finds the span that answers a question; the question is global by default."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.initialise()

    def default_globals(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
    ) -> Tensor | None:
        if input_ids is None:
            return None
        return global_attention.question(input_ids, self.config.sep_token_id, attention_mask)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> QuestionAnsweringOutput:
        """Returns the logits of every position to be the first and the last of the answer.

        Args:
            start_positions, end_positions: (batch,) long; a position beyond the text does not count.
            inputs: as in `LongformerModel.forward`, as are the other arguments.

        Raises:
            LongformerError: no global mask is given and the ids do not show where the question ends.
        """
        if global_attention_mask is None:
            global_attention_mask = self.default_globals(input_ids, attention_mask, inputs.get("inputs_embeds"))
        encoded = self.longformer(input_ids, attention_mask, global_attention_mask, **inputs)
        start_logits, end_logits = self.qa_outputs(encoded.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (span_loss(start_logits, start_positions) + span_loss(end_logits, end_positions)) / 2
        return QuestionAnsweringOutput(
            loss, start_logits, end_logits, encoded.hidden_states, encoded.attentions, encoded.global_attentions
        )


def span_loss(logits: Tensor, positions: Tensor) -> Tensor:
    """Returns the mean cross-entropy of (batch, positions) logits over the rows whose target lies inside."""
    outside = logits.shape[1]
    return mean_cross_entropy(logits, positions.flatten().clamp(0, outside), ignored=outside)


def mean_cross_entropy(logits: Tensor, targets: Tensor, *, ignored: int) -> Tensor:
    """Returns the mean cross-entropy of (rows, classes) logits over the rows whose target counts; of none, 0."""
    total = functional.cross_entropy(logits, targets, ignore_index=ignored, reduction="sum")
    return total / (targets != ignored).sum().clamp(min=1)


class LongformerForTokenClassification(ModelWithHead):
    """Classifies every token; no token is global by default."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.initialise()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> HeadOutput:
        """Returns logits (batch, positions, num_labels) and, given labels (-100 = does not count), the loss."""
        encoded = self.longformer(input_ids, attention_mask, global_attention_mask, **inputs)
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        loss = None if labels is None else mean_cross_entropy(logits.flatten(0, 1), labels.flatten(), ignored=IGNORED)
        return head_output(encoded, loss, logits)


def head_output(encoded: EncoderOutput, loss: Tensor | None, logits: Tensor | None) -> HeadOutput:
    """Returns a head's result together with what was asked of the encoder."""
    return HeadOutput(loss, logits, encoded.hidden_states, encoded.attentions, encoded.global_attentions)


class MultiHopHead(nn.Module):
    """Scores positions, kinds of answers, sentences and paragraphs."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.span = nn.Linear(width, 2)
        self.answer_type = _scorer(width, 3)
        self.sentence = _scorer(width, 1)
        self.paragraph = _scorer(width, 1)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None,
        sentence_positions: Tensor,
        paragraph_positions: Tensor,
    ) -> MultiHopOutput:
        """Returns logits of hidden states, (batch, positions, width); others as in `LongformerForMultiHopAnswers`."""
        sentences, paragraphs = (
            hidden.take_along_dim(positions.clamp(min=0)[:, :, None], 1)
            for positions in (sentence_positions, paragraph_positions)
        )
        start_logits, end_logits = self.span(hidden).unbind(-1)
        return MultiHopOutput(
            start_logits,
            end_logits,
            self.answer_type(of_first_token(hidden, attention_mask)),
            self.sentence(sentences).squeeze(-1),
            self.paragraph(paragraphs).squeeze(-1),
        )


def _scorer(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


class LongformerForMultiHopAnswers(ModelWithHead):
    """Answers a question from several paragraphs, and scores the paragraphs and sentences that the answer rests on
    (Longformer paper, appendix, HotpotQA); no token is global by default."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.multi_hop = MultiHopHead(config)
        self.initialise()

    def facts(
        self,
        *given: Tensor | None,
        sentence_positions: Tensor | None = None,
        paragraph_positions: Tensor | None = None,
        **inputs: Any,
    ) -> BatchFacts:
        return super().facts(*given, **inputs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        sentence_positions: Tensor,
        paragraph_positions: Tensor,
        **inputs: Unpack[EncoderInputs],
    ) -> MultiHopOutput:
        """Returns the logits of every position to be the first and the last of the answer, of the kinds of answers (a
        piece, yes, no), and of every sentence and paragraph to be one that the answer rests on.

        Args:
            sentence_positions, paragraph_positions: (batch, sentences) and (batch, paragraphs) long: where the token
                of each stands; -1 behind the last, whose logits mean nothing.
            inputs: as in `LongformerModel.forward`, as are the other arguments.
        """
        encoded = self.longformer(input_ids, attention_mask, global_attention_mask, **inputs)
        return self.multi_hop(encoded.last_hidden_state, attention_mask, sentence_positions, paragraph_positions)
