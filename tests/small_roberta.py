"""A RoBERTa that trains in seconds."""

import shutil
from pathlib import Path

import torch
from transformers import RobertaConfig, RobertaForMaskedLM


def write_small_roberta(folder: Path, test_data: Path) -> None:
    """Write one of random weights without dropout, 64 tokens long, with the tokenizer of the published ones."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50_265, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, pad_token_id=1, type_vocab_size=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(test_data / "tokenizer_gpt2_roberta" / name, folder)
