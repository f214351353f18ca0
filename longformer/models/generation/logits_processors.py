"""What a text may go on with: logits processors that change the scores of the next token, in Hugging Face's order."""

import torch
from torch import Tensor

from longformer.models.generation.config import GenerationSettings


def process_logits(scores: Tensor, written: Tensor, settings: GenerationSettings) -> Tensor:
    """Returns the scores of the next token after all processors.

    Args:
        scores: (texts, vocabulary) float32: logits or log-probabilities.
        written: (texts, tokens) long, the decoder's first token included.
        settings: what is asked for.
    """
    length = written.shape[1]
    if 0 < settings.no_repeat_ngram_size <= length:
        scores = forbid_repeated_ngrams(scores, written, settings.no_repeat_ngram_size)
    if length < settings.min_length and settings.eos_token_id:
        scores = scores.index_fill(1, scores.new_tensor(settings.eos_token_id, dtype=torch.long), -torch.inf)
    if length == 1 and settings.forced_bos_token_id is not None:
        scores = force_tokens(scores, (settings.forced_bos_token_id,))
    if length == settings.max_length - 1 and settings.forced_eos_token_id:
        scores = force_tokens(scores, settings.forced_eos_token_id)
    return filter_logits(scores, settings) if settings.do_sample else scores


def forbid_repeated_ngrams(scores: Tensor, written: Tensor, size: int) -> Tensor:
    """Forbids every token that would complete `size` tokens that a text holds already."""
    known = written.unfold(1, size, 1)
    unfinished = written[:, None, written.shape[1] - size + 1 :]
    texts, positions = (known[..., :-1] == unfinished).all(-1).nonzero(as_tuple=True)
    return scores.index_put((texts, known[texts, positions, -1]), scores.new_tensor(-torch.inf))


def force_tokens(scores: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """Leaves no choice but some tokens, all alike."""
    forced = torch.full_like(scores, -torch.inf)
    forced[:, list(tokens)] = 0
    return forced


def filter_logits(scores: Tensor, settings: GenerationSettings) -> Tensor:
    """Applies temperature, top_k and top_p, in this order.

    A search by beams keeps one more token than there are ends of a text, so that it can always go on.
    """
    min_tokens = 1 if settings.num_beams == 1 else 1 + max(1, len(settings.eos_token_id))
    scores = scores / settings.temperature
    if settings.top_k:
        kept = min(max(settings.top_k, min_tokens), scores.shape[1])
        scores = scores.masked_fill(scores < scores.topk(kept).values[:, -1:], -torch.inf)
    if settings.top_p < 1:
        ascending, tokens = scores.sort()
        improbable = ascending.softmax(-1).cumsum(-1) <= 1 - settings.top_p
        improbable[:, -min_tokens:] = False
        scores = scores.masked_fill(improbable.scatter(1, tokens, improbable), -torch.inf)
    return scores


def sampled(scores: Tensor, count: int, noise: Tensor) -> Tensor:
    """Returns `count` different tokens per text, drawn by the probabilities that `scores` stand for.

    The race of exponential times by which `torch.multinomial` draws, too.

    Args:
        scores: (texts, choices).
        count: how many to draw.
        noise: (texts, choices), exponentially distributed.
    """
    return (scores.softmax(-1) / noise).topk(count).indices
