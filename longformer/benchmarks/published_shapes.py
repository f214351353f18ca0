"""Shapes of published checkpoints, in the names that our configs and Hugging Face's share."""

from typing import Any

LONGFORMER_BASE: dict[str, Any] = {
    "vocab_size": 50265,
    "max_position_embeddings": 4098,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
"""allenai/longformer-base-4096, and RoBERTa-base but for its number of positions; the rest is the default."""
LONGFORMER_LARGE: dict[str, Any] = LONGFORMER_BASE | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
"""allenai/longformer-large-4096, and RoBERTa-large but for its number of positions."""
LED_BASE: dict[str, Any] = {
    "vocab_size": 50265,
    "d_model": 768,
    "attention_window": 1024,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
}
"""allenai/led-base-16384."""
LED_LARGE: dict[str, Any] = {
    "vocab_size": 50265,
    "d_model": 1024,
    "attention_window": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
}
"""allenai/led-large-16384."""
MODERNBERT_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "intermediate_size": 2624,
}
"""answerdotai/ModernBERT-large; the rest, and all of the base model, is the default of transformers."""
