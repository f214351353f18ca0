"""Writing text with a trained character model: one character at a time, remembering only what the bands can see.

The memory of a layer holds window * dilation + 1 positions, however long the text grows; what comes out equals
recomputing the whole text at every step.
"""

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor

from longformer.models.char_lm.attention import Projections
from longformer.models.char_lm.model import CharacterLM, Layer


class BandCache:
    """Keys and values of the last positions of one layer, as a ring that new positions overwrite.

    Args:
        layer: the layer whose attention is remembered.
    """

    def __init__(self, layer: Layer) -> None:
        attention = layer.attention
        self.layer = layer
        weight = attention.query_key_value.weight
        self.window = attention.window
        self.dilations = torch.tensor(attention.dilations, device=weight.device)
        self.capacity = self.window * max(attention.dilations) + 1
        self.heads = torch.arange(attention.heads, device=weight.device)
        self.keys, self.values = weight.new_zeros(2, self.capacity, attention.heads, attention.head_size)
        self.relative_keys = attention.relative_keys(self.window, weight.device)
        self.position = -1

    def remember(self, projections: Projections) -> None:
        """Takes over keys and values of a batch of one: the positions that follow the last one remembered."""
        new = projections.key.shape[1]
        positions = torch.arange(self.position + 1, self.position + 1 + new, device=self.keys.device)
        kept = slice(max(0, new - self.capacity), new)
        self.keys[positions[kept] % self.capacity] = projections.key[0, kept]
        self.values[positions[kept] % self.capacity] = projections.value[0, kept]
        self.position += new

    def attend(self, projections: Projections) -> Tensor:
        """Returns the attended values of the position remembered last, (1, 1, heads, head_size)."""
        # One row per column of the band, farthest first, as in relative_keys; columns before the text are cut off.
        columns = torch.arange(min(self.window, self.position), -1, -1, device=self.keys.device)
        positions = self.position - columns[:, None] * self.dilations
        keys = self.keys[positions % self.capacity, self.heads]
        values = self.values[positions % self.capacity, self.heads]
        scores = (projections.query[0] * keys).sum(-1)
        if projections.relative_query is not None and self.relative_keys is not None:
            scores = scores + (projections.relative_query[0] * self.relative_keys[-len(columns) :]).sum(-1)
        scores = scores.float() * keys.shape[-1] ** -0.5
        probabilities = scores.masked_fill(positions < 0, -torch.inf).softmax(dim=0).to(values.dtype)
        return (probabilities[..., None] * values).sum(0)[None, None]


def generate(
    model: CharacterLM,
    prompt: Tensor,
    *,
    new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int,
) -> Iterator[int]:
    """Yields characters that continue a prompt, each as soon as it is drawn.

    Args:
        model: is put into evaluation mode.
        prompt: (characters,) long, at least one; may be longer than any window.
        new_tokens: how many characters to write.
        temperature: divides the logits; 0 always takes the most probable character.
        top_k: draw only among so many most probable characters.
        seed: the same seed, model and prompt give the same text.

    Raises:
        ValueError: an argument is out of range.
    """
    if prompt.dim() != 1 or len(prompt) == 0:
        raise ValueError(f"prompt must be (characters,) with at least one character, got shape {tuple(prompt.shape)}")
    if not temperature >= 0:  # NaN is not
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    model.eval()
    return _continue(model, prompt, new_tokens, temperature, top_k, seed)


def empty_caches(model: CharacterLM) -> list[BandCache]:
    """Returns a cache for every layer, bottom to top, that remembers nothing yet."""
    return [BandCache(layer) for layer in cast(Iterable[Layer], model.layers)]


@torch.no_grad()
def next_logits(model: CharacterLM, tokens: Tensor, caches: list[BandCache]) -> Tensor:
    """Reads the tokens that follow those remembered and returns the logits of the one after them, (vocabulary,).

    Many tokens are read at once only at the start, while the caches are empty.
    """
    start = caches[0].position + 1
    if start > 0 and len(tokens) > 1:
        raise ValueError("a cache that remembers text takes one token at a time")
    positions = model.shared_positions(torch.arange(start, start + len(tokens), device=tokens.device))
    hidden = model.embed(tokens[None])
    for cache in caches:
        layer = cache.layer
        projections = layer.attention.project(layer.attention_norm(hidden), positions)
        cache.remember(projections)
        attended = cache.attend(projections) if start > 0 else layer.attention.attend(projections)
        hidden = layer.finish(hidden, layer.attention.mix(attended))
    return model.predict(hidden[:, -1:])[0, 0]


@torch.no_grad()
def _continue(
    model: CharacterLM, prompt: Tensor, new_tokens: int, temperature: float, top_k: int | None, seed: int
) -> Iterator[int]:
    # Drawn on the CPU, so that a seed gives the same text on every device.
    generator = torch.Generator().manual_seed(seed)
    caches = empty_caches(model)
    tokens = prompt.to(model.embedding.weight.device)
    for _ in range(new_tokens):
        logits = next_logits(model, tokens, caches).float().cpu()
        token = _drawn(logits, temperature, top_k, generator)
        yield token
        tokens = tokens.new_tensor([token])


def _drawn(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    # Of the differences, because a low temperature would make infinities of the logits; the lowest would be 0 in fp32.
    lowest = torch.finfo(logits.dtype).tiny
    probabilities = ((logits - logits.max()) / max(temperature, lowest)).softmax(-1)
    return int(torch.multinomial(probabilities, 1, generator=generator))
