"""Random small Longformer models and batches, in pairs with Hugging Face's."""

import random
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from longformer import models

VOCABULARY, PADDING, SEPARATOR = 50, 1, 2
HEADS = [
    "LongformerModel",
    "LongformerForMaskedLM",
    "LongformerForSequenceClassification",
    "LongformerForQuestionAnswering",
    "LongformerForTokenClassification",
    "LongformerForMultipleChoice",
]


@dataclass
class Case:
    """A Hugging Face model, ours with the same weights, and a batch for both."""

    theirs: nn.Module
    ours: Any
    batch: dict[str, Tensor]


def make_case(head: str, seed: int, folder: Any, **overrides: Any) -> Case:
    """Draw a config, weights (through a saved folder) and a batch of the kind that the head takes."""
    generator = random.Random(seed)
    torch.manual_seed(seed)
    layers, heads = generator.randint(1, 3), generator.choice([1, 2, 3])
    window = 2 * generator.randint(2, 6)
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": 8 * heads * generator.choice([1, 2]),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": generator.choice([16, 24]),
        # Hugging Face cannot run windows that differ unless the largest is a multiple of the others.
        "attention_window": [window] * layers if generator.random() < 0.5 else [window, 2 * window, window][:layers],
        "hidden_act": generator.choice(["gelu", "relu", "gelu_new"]),
        "max_position_embeddings": 64,
        "type_vocab_size": generator.choice([1, 2]),
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "num_labels": 2 if head == "LongformerForQuestionAnswering" else generator.choice([1, 3]),
    }
    config = transformers.LongformerConfig(**{**options, **overrides})
    theirs = getattr(transformers, head)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    theirs.save_pretrained(folder)
    batch = make_batch(head, generator, options)
    read_first_tokens(theirs, head, batch)
    return Case(theirs, getattr(models, head).from_pretrained(folder), batch)


def read_first_tokens(theirs: Any, head: str, batch: dict[str, Tensor]) -> None:
    """Hand their heads that read position 0 the first token of every text, wherever it stands."""
    mask = batch.get("attention_mask")
    reader = {"LongformerModel": "pooler", "LongformerForSequenceClassification": "classifier"}.get(head)
    if mask is None or reader is None:
        return
    first = mask.argmax(1)
    getattr(theirs, reader).register_forward_pre_hook(
        # A patched model hands its pooler the first tokens alone.
        lambda _, args: args if args[0].shape[1] == 1 else (args[0][torch.arange(len(first)), first][:, None],)
    )
    if reader == "classifier":
        default = functional.one_hot(first, mask.shape[1])
        theirs.register_forward_pre_hook(
            lambda _, args, given: (args, {"global_attention_mask": default} | given), with_kwargs=True
        )


def make_batch(head: str, generator: random.Random, options: dict[str, Any]) -> dict[str, Tensor]:
    """Draw ids, masks and labels."""
    rows, positions = generator.randint(1, 3), generator.randint(6, 45)
    shape = (rows, 2, positions) if head == "LongformerForMultipleChoice" else (rows, positions)
    ids = torch.randint(3, VOCABULARY, shape)
    asks = head in ("LongformerForQuestionAnswering", "LongformerForMultipleChoice")
    if asks:
        ids[..., 2:4] = SEPARATOR
        ids[..., 5] = SEPARATOR
    mask = torch.ones_like(ids)
    side = generator.choice(["none", "right"] if asks else ["none", "left", "right", "odd ids"])
    for row in mask.view(-1, positions) if side != "none" else ():
        padding = generator.randint(0, positions - 6)
        row[(slice(0, padding) if side == "left" else slice(positions - padding, positions))] = 0
    if side != "odd ids":
        ids = ids.masked_fill(mask == 0, PADDING)
    batch = {"input_ids": ids}
    if side != "none" or generator.random() < 0.5:
        batch["attention_mask"] = mask
    share = generator.choice([None, 0.0, 0.05, 0.4])
    if share is not None:
        batch["global_attention_mask"] = (torch.rand(shape) < share).long() * mask
    if options["type_vocab_size"] == 2 and generator.random() < 0.5:
        batch["token_type_ids"] = torch.randint(0, 2, shape)
    if generator.random() < 0.2:
        batch["position_ids"] = torch.randint(0, 60, shape)
    return batch | make_labels(head, generator, rows, positions, options["num_labels"])


def make_labels(head: str, generator: random.Random, rows: int, positions: int, labels: int) -> dict[str, Tensor]:
    """Draw what the head is to predict."""
    match head:
        case "LongformerForMaskedLM":
            targets = torch.randint(0, VOCABULARY, (rows, positions))
            hidden = torch.rand(rows, positions) > 0.3
            hidden[0, 0] = False
            return {"labels": targets.masked_fill(hidden, -100)}
        case "LongformerForSequenceClassification":
            if labels == 1:
                return {"labels": torch.randn(rows)}
            several = generator.random() < 0.5
            return {"labels": torch.rand(rows, labels).round() if several else torch.randint(0, labels, (rows,))}
        case "LongformerForQuestionAnswering":
            return {
                "start_positions": torch.randint(0, positions, (rows,)),
                "end_positions": torch.randint(0, positions, (rows,)),
            }
        case "LongformerForTokenClassification":
            return {"labels": torch.randint(0, labels, (rows, positions))}
        case "LongformerForMultipleChoice":
            return {"labels": torch.randint(0, 2, (rows,))}
    return {}
