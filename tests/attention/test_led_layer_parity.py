"""Our attention in LED's encoder equals Hugging Face's, values and gradients, at lengths its layer has to pad."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longformer.attention.metadata import AttentionMetadata
from longformer.models import LEDConfig
from longformer.models.led.layers import EncoderAttention

pytest.importorskip("transformers", reason="parity needs transformers")
from transformers import LEDConfig as TheirConfig
from transformers.models.led.modeling_led import LEDEncoderAttention

BATCH, WIDTH, WINDOW = 2, 24, 8
SHAPE = {
    "encoder_layers": 1,
    "d_model": WIDTH,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "attention_window": [WINDOW],
    "attention_dropout": 0.0,
}


def layers() -> tuple[EncoderAttention, LEDEncoderAttention]:
    """Return our layer and Hugging Face's with the same random weights."""
    torch.manual_seed(0)
    theirs = LEDEncoderAttention(TheirConfig(**SHAPE), 0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = theirs.state_dict()
    for kind in ("weight", "bias"):
        parts = [state.pop(f"longformer_self_attn.{name}.{kind}") for name in ("query", "key", "value")]
        state[f"longformer_self_attn.query_key_value.{kind}"] = torch.cat(parts)
    ours = EncoderAttention(LEDConfig(**SHAPE), 0)
    ours.load_state_dict(state)
    return ours, theirs


def run_padded(layer: LEDEncoderAttention, hidden: Tensor, real: Tensor, is_global: Tensor) -> Tensor:
    """Run Hugging Face's layer on a text padded to its window, as their model pads it, and cut its result back."""
    missing = -hidden.shape[1] % WINDOW
    padding = functional.pad(~real, (0, missing), value=True)
    is_global = functional.pad(is_global, (0, missing))
    merged = torch.zeros(padding.shape).masked_fill(padding, -10000.0).masked_fill(is_global, 10000.0)
    padded = functional.pad(hidden, (0, 0, 0, missing))
    attended: Tensor = layer(padded, merged, padding, is_global, bool(is_global.any()))[0]
    return attended[:, : hidden.shape[1]]


@pytest.mark.parametrize("positions", [1, 7, 24, 53])
@pytest.mark.parametrize("global_positions", [[], [0], [0, 5, 6, 40]])
@pytest.mark.parametrize("padded", [0, 3])
def test_values_and_gradients_equal_those_of_hugging_faces_led(
    positions: int, global_positions: list[int], padded: int
) -> None:
    ours, theirs = layers()
    hidden = torch.randn(BATCH, positions, WIDTH, requires_grad=True)
    real = torch.ones(BATCH, positions, dtype=torch.bool)
    real[1, max(1, positions - padded) :] = False
    is_global = torch.zeros_like(real)
    is_global[:, [position for position in global_positions if position < positions]] = True
    is_global &= real

    found = ours.output(ours.longformer_self_attn(hidden, AttentionMetadata.of(real, is_global)))
    expected = run_padded(theirs, hidden, real, is_global)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    gradient = torch.randn_like(found)
    names = [name for name, _ in ours.named_parameters() if is_global.any() or "_global" not in name]
    our_parameters = [ours.get_parameter(name) for name in names]
    found_gradients = torch.autograd.grad(found, [hidden, *our_parameters], gradient)
    their_names = [name for name, _ in theirs.named_parameters() if is_global.any() or "_global" not in name]
    their_parameters = [theirs.get_parameter(name) for name in their_names]
    of_hidden, *rest = torch.autograd.grad(expected, [hidden, *their_parameters], gradient)
    by_name = dict(zip(their_names, rest, strict=True))
    for kind in ("weight", "bias"):
        parts = [by_name.pop(f"longformer_self_attn.{name}.{kind}") for name in ("query", "key", "value")]
        by_name[f"longformer_self_attn.query_key_value.{kind}"] = torch.cat(parts)
    for our_gradient, their_gradient in zip(
        found_gradients, [of_hidden, *(by_name[name] for name in names)], strict=True
    ):
        largest = their_gradient.abs().max().clamp(min=1)
        assert (our_gradient - their_gradient).abs().max() <= 1e-5 * largest
