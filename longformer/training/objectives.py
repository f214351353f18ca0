"""What a model learns from: a source of batches, a loss with the number of predictions that it is the mean of, and how
many tokens a batch holds.

All that must be known of a batch on the host is read from it while it is on the CPU: nothing here waits for a device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from longformer.models.common.inputs import BatchFacts
from longformer.models.common.token_loss import IGNORED

Batch = dict[str, Tensor]
_STARTS, _ENDS = "start_positions", "end_positions"
_HOP_LABELS = (_STARTS, _ENDS, "answer_type", "sentence_labels", "paragraph_labels")
HOP_WEIGHTS = {"span": 0.25, "type": 1.0, "sentence": 1.0, "paragraph": 0.5}
"""How much each loss of a question with several paragraphs counts, as in the example of the published code."""


class BatchSource(Protocol):
    """An endless stream of micro-batches for one rank.

    Its whole state is the small dictionary of `state_dict()`, valid at every step border; two sources with equal states
    yield equal batches.
    """

    def __iter__(self) -> Iterator[Batch]:
        """Yields micro-batches; for language models {"tokens": (micro_batch, sequence_length + 1) long}."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns the position in the data as JSON-compatible values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`; refuses the state of other data."""
        ...

    def mock_batch(self) -> Batch:
        """Returns a batch of the real shape without reading data."""
        ...


class Lengths(NamedTuple):
    """Tokens of one sequence, special ones included and padding not."""

    read: int
    """By the encoder, or by the only stack of layers."""
    written: int = 0
    """By the decoder, where there is one."""

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.read + self.written


Model = Callable[..., Any]


@dataclass(frozen=True)
class Objective:
    """A loss, and what it needs to be the same for every division of a batch."""

    loss: Callable[[Model, Mapping[str, Any]], Tensor]
    """Returns the mean over the predictions of a micro-batch, in nats; 0 where there are none. The batch is on the
    model's device, and where `facts` tells them, its facts are in it."""
    lengths: Callable[[Batch], list[Lengths]]
    """Returns the tokens of every sequence of a micro-batch that is still on the CPU."""
    predictions: Callable[[Batch], int] | None = None
    """Returns how many predictions a micro-batch holds; None = all micro-batches hold as many."""
    facts: Callable[[Any, Batch], BatchFacts] | None = None
    """Returns what the model must know on the host of a micro-batch that is still on the CPU; None = nothing."""


def next_character_loss(model: Model, batch: Mapping[str, Any]) -> Tensor:
    """Returns the mean cross-entropy in nats of every character given the ones before it (semantics.md 3.1).

    Args:
        model: maps tokens (batch, positions) to logits (batch, positions, vocabulary).
        batch: {"tokens": (batch, positions + 1) long}; each position predicts its right neighbour.
    """
    tokens = batch["tokens"]
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


def loss_of_model(model: Model, batch: Mapping[str, Any]) -> Tensor:
    """Returns the mean loss that a model computes itself, given all of the batch by name, `labels` among it."""
    loss: Tensor = model(**batch).loss
    return loss


def summary_loss(model: Model, batch: Mapping[str, Any], *, label_smoothing: float) -> Tensor:
    """Returns the mean cross-entropy in nats of the tokens of the summaries given those before them (semantics.md 5).

    Args:
        model: an LED under Hugging Face's names.
        batch: input_ids, attention_mask and global_attention_mask, each (batch, positions) long, and labels, (batch,
            target positions) long.
        label_smoothing: probability that a target gives away to all tokens in equal parts.
    """
    loss: Tensor = model(**batch, smoothing=label_smoothing).loss
    return loss


def label_loss(model: Model, batch: Mapping[str, Any], *, weights: Sequence[float] | None) -> Tensor:
    """Returns the mean loss of labelled texts or tokens, those of each class weighted.

    Of whole labels it is the cross-entropy, of several classes the binary one, in the mean over the classes, of numbers
    the squared error. The mean is over labels, not over their weights, so a batch may be divided in any way.

    Args:
        model: gives logits (..., outputs).
        batch: labels (...) long, IGNORED where there is none; or of several classes (batch, classes) float, or of a
            regression (batch,) float, NaN where there is none; and what the model is called with.
        weights: of the classes; where several may hold, of their being true. None: all weigh 1.
    """
    labels = batch["labels"]
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits.float()
    # Filled on the device: a copy from the host would wait for it.
    weight = None if weights is None else torch.cat([logits.new_full((1,), each) for each in weights])
    if not labels.is_floating_point():
        summed = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", ignore_index=IGNORED)
        if weight is not None:
            summed = summed * weight[labels.flatten().clamp(min=0)]
        return summed.sum() / (labels != IGNORED).sum().clamp(min=1)
    is_labelled = ~labels.isnan()
    known = labels.nan_to_num()
    if labels.dim() == 1:
        losses = F.mse_loss(logits.squeeze(-1), known, reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(logits, known, pos_weight=weight, reduction="none")
    return (losses * is_labelled).sum() / is_labelled.sum().clamp(min=1)


def span_loss(model: Model, batch: Mapping[str, Any]) -> Tensor:
    """Returns the mean loss in nats of finding where an answer begins and where it ends, whichever of its places is
    found: -log of the sum of their probabilities (Clark and Gardner 2018; Longformer paper, TriviaQA).

    Args:
        model: gives start_logits and end_logits, (batch, positions) each.
        batch: start_positions and end_positions, (batch, places) long, IGNORED behind the last place; attention_mask;
            and what else the model is called with. A sequence without a place does not count.
    """
    output = model(**_without_places(batch))
    found = [
        _any_place_loss(logits, batch[places], batch["attention_mask"])
        for logits, places in ((output.start_logits, _STARTS), (output.end_logits, _ENDS))
    ]
    count = (batch[_STARTS] != IGNORED).any(1).sum().clamp(min=1)
    return (found[0] + found[1]).sum() / (2 * count)


def hop_loss(model: Model, batch: Mapping[str, Any]) -> Tensor:
    """Returns the mean over questions of four losses in nats, weighed by HOP_WEIGHTS: the places of the answer as in
    `span_loss`, the kind of answer, and the sentences and paragraphs that it rests on (binary, in the mean over those
    of a question); Longformer paper, appendix, HotpotQA.

    Args:
        model: a `LongformerForMultiHopAnswers`.
        batch: the labels `answer_type` (batch,), `sentence_labels`, `paragraph_labels` and those of `span_loss`,
            IGNORED where there is none; and what the model is called with. A question without a type does not count.
    """
    output = model(**{name: value for name, value in batch.items() if name not in _HOP_LABELS})
    kind = batch["answer_type"]
    spans = [
        _any_place_loss(logits, batch[places], batch["attention_mask"])
        for logits, places in ((output.start_logits, _STARTS), (output.end_logits, _ENDS))
    ]
    losses = {
        "span": (spans[0] + spans[1]) / 2,
        "type": F.cross_entropy(output.type_logits.float(), kind, reduction="none", ignore_index=IGNORED),
        "sentence": _binary_loss(output.sentence_logits, batch["sentence_labels"]),
        "paragraph": _binary_loss(output.paragraph_logits, batch["paragraph_labels"]),
    }
    counts = kind != IGNORED
    of_questions = torch.stack([HOP_WEIGHTS[name] * loss for name, loss in losses.items()]).sum(0)
    return (of_questions * counts).sum() / counts.sum().clamp(min=1)


def _binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean binary cross-entropy of each row over its labels, (batch,) float32; 0 of a row without any."""
    is_labelled = labels != IGNORED
    losses = F.binary_cross_entropy_with_logits(logits.float(), labels.clamp(min=0).float(), reduction="none")
    return (losses * is_labelled).sum(1) / is_labelled.sum(1).clamp(min=1)


def _any_place_loss(logits: Tensor, places: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns the loss of each sequence, (batch,) float32; 0 of one without a place."""
    logits = logits.float().masked_fill(attention_mask == 0, -torch.inf)
    positions = torch.arange(logits.shape[1], device=logits.device)
    is_place = (places[:, :, None] == positions).any(1)
    # Without a place all positions stay, so that the difference and its gradient are 0, not NaN.
    others = ~is_place & is_place.any(1, keepdim=True)
    return logits.logsumexp(1) - logits.masked_fill(others, -torch.inf).logsumexp(1)


def _without_places(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a model is called with to find answers."""
    return {name: value for name, value in batch.items() if name not in (_STARTS, _ENDS)}


def facts_of_model(model: Any, batch: Batch) -> BatchFacts:
    """Returns the facts that a Longformer or LED wants of a batch with which it is called by name."""
    facts: BatchFacts = model.facts(**batch)
    return facts


def labels_in(batch: Batch) -> int:
    """Returns how many labels there are."""
    labels = batch["labels"]
    return int((~labels.isnan() if labels.is_floating_point() else labels != IGNORED).sum())


def questions_in(batch: Batch) -> int:
    """Returns how many questions there are whose answer is learned."""
    return int((batch[_STARTS] != IGNORED).any(1).sum())


def documents_in(batch: Batch) -> int:
    """Returns how many documents there are whose mentions are clustered."""
    return int((batch["word_ids"] >= 0).any(1).sum())


def lengths_of_streams(batch: Batch) -> list[Lengths]:
    """Returns the lengths of sequences without padding, each position of which predicts its right neighbour."""
    sequences, positions = batch["tokens"].shape
    return [Lengths(positions - 1)] * sequences


def lengths_of_texts(batch: Batch) -> list[Lengths]:
    """Returns the lengths of texts by their attention_mask, (..., positions); where there is no token is no text.

    A row whose document_ids, (batch, positions), tell several documents apart holds so many texts.
    """
    mask = batch["attention_mask"]
    if "document_ids" in batch:
        mask = mask[:, None] * F.one_hot(batch["document_ids"]).mT
    return [Lengths(read) for read in _row_sums(mask) if read]


def lengths_of_summaries(batch: Batch) -> list[Lengths]:
    """Returns the lengths of documents by their attention_mask, and of summaries by their labels."""
    written = _row_sums(batch["labels"] != IGNORED)
    return [Lengths(*pair) for pair in zip(_row_sums(batch["attention_mask"]), written, strict=True)]


def _row_sums(mask: Tensor) -> list[int]:
    sums: list[int] = mask.sum(-1).flatten().tolist()
    return sums


NEXT_CHARACTER = Objective(next_character_loss, lengths_of_streams)
LABELS = Objective(loss_of_model, lengths_of_texts, labels_in, facts_of_model)
"""What most models learn: the hidden words (semantics.md 4), the class of a text, the class of every token."""


ANSWER_SPANS = Objective(
    span_loss, lengths_of_texts, questions_in, lambda model, batch: facts_of_model(model, _without_places(batch))
)
"""Where the answers to questions begin and end."""


HOPS = Objective(
    hop_loss,
    lengths_of_texts,
    lambda batch: int((batch["answer_type"] != IGNORED).sum()),
    lambda model, batch: facts_of_model(model, {name: each for name, each in batch.items() if name not in _HOP_LABELS}),
)
"""The answer to a question, and what it rests on."""


CLUSTERS = Objective(loss_of_model, lengths_of_texts, documents_in, facts_of_model)
"""Which mentions of a document are of the same thing."""


def summary_tokens(label_smoothing: float) -> Objective:
    """Returns the objective of learning to write summaries."""
    return Objective(
        partial(summary_loss, label_smoothing=label_smoothing), lengths_of_summaries, labels_in, facts_of_model
    )


def weighted_labels(weights: Sequence[float] | None) -> Objective:
    """Returns the objective of learning labels whose classes weigh differently; see `label_loss`."""
    return Objective(partial(label_loss, weights=weights), lengths_of_texts, labels_in, facts_of_model)
