"""Random small LED models and batches, in pairs with Hugging Face's."""

import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from longformer import models
from tests.models.longformer_cases import PADDING, VOCABULARY, Case

LED_MODELS = ["LEDModel", "LEDForConditionalGeneration", "LEDForQuestionAnswering"]
SIDES = ("none", "left", "right", "odd ids")


def make_led_case(name: str, seed: int, folder: Any, **overrides: Any) -> Case:
    """Draw a config, weights (through a saved folder) and a batch of the kind that the model takes."""
    generator = random.Random(seed)
    torch.manual_seed(seed)
    layers, window = generator.randint(1, 3), 2 * generator.randint(2, 6)
    encoder_heads, decoder_heads = generator.choice([(1, 2), (2, 1), (2, 2), (3, 1)])
    options = {
        "vocab_size": VOCABULARY,
        "d_model": 12 * generator.choice([1, 2]),
        "encoder_layers": layers,
        "decoder_layers": generator.randint(1, 3),
        "encoder_attention_heads": encoder_heads,
        "decoder_attention_heads": decoder_heads,
        "encoder_ffn_dim": generator.choice([16, 24]),
        "decoder_ffn_dim": generator.choice([16, 24]),
        # Hugging Face cannot run windows that differ unless the largest is a multiple of the others.
        "attention_window": [window] * layers if generator.random() < 0.5 else [window, 2 * window, window][:layers],
        "activation_function": generator.choice(["gelu", "relu", "gelu_new"]),
        "max_encoder_position_embeddings": 72,
        "max_decoder_position_embeddings": 20,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }
    theirs = getattr(transformers, name)(transformers.LEDConfig(**{**options, **overrides})).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        if name == "LEDForConditionalGeneration":
            theirs.final_logits_bias.normal_()
    theirs.save_pretrained(folder)
    return Case(theirs, getattr(models, name).from_pretrained(folder), make_led_batch(name, generator))


def make_led_batch(name: str, generator: random.Random) -> dict[str, Tensor]:
    """Draw ids, masks and labels."""
    rows, written = generator.randint(1, 3), generator.randint(1, 16)
    positions = generator.choice([1, generator.randint(2, 45), generator.randint(20, 45)])
    batch = padded_ids(generator, rows, positions, prefix="")
    share = generator.choice([None, 0.0, 0.05, 0.4])
    if share is not None:
        mask = batch.get("attention_mask", torch.ones(rows, positions, dtype=torch.long))
        batch["global_attention_mask"] = (torch.rand(rows, positions) < share).long() * mask
    if name != "LEDForConditionalGeneration" or generator.random() < 0.5:
        # The loss of question answering counts what stands at padding; at the left that has no meaning.
        sides = ("none", "right") if name == "LEDForQuestionAnswering" else SIDES
        batch |= padded_ids(generator, rows, written, prefix="decoder_", sides=sides)
    if name == "LEDForConditionalGeneration":
        is_token = batch.get("decoder_attention_mask", torch.ones(rows, written, dtype=torch.long))
        labelled = (torch.rand(rows, written) < 0.3) & (is_token == 1)
        labelled[torch.arange(rows), is_token.argmax(1)] = True
        batch["labels"] = torch.randint(0, VOCABULARY, (rows, written)).masked_fill(~labelled, -100)
    if name == "LEDForQuestionAnswering":
        batch["start_positions"] = torch.randint(0, written, (rows,))
        batch["end_positions"] = torch.randint(0, written + 5, (rows,)).clamp_(max=written)
        batch["end_positions"][0] = 0
    return batch


def padded_ids(
    generator: random.Random, rows: int, positions: int, *, prefix: str, sides: Sequence[str] = SIDES
) -> dict[str, Tensor]:
    """Draw ids, padded on one side or not at all, and the mask that says so."""
    ids = torch.randint(3, VOCABULARY, (rows, positions))
    mask = torch.ones_like(ids)
    side = generator.choice(sides)
    for row in mask if side != "none" else ():
        padding = generator.randint(0, generator.choice([min(1, positions - 1), positions - 1]))
        row[(slice(0, padding) if side == "left" else slice(positions - padding, positions))] = 0
    if side != "odd ids":
        ids = ids.masked_fill(mask == 0, PADDING)
    given = {f"{prefix}input_ids": ids}
    return given if side == "none" and generator.random() < 0.5 else given | {f"{prefix}attention_mask": mask}
