"""Claims: models of transformers give the same results with our attention registered as with their own."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from longformer.interop.attention_interface import register_attention

SHAPE = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
register_attention()


def run(model: nn.Module, implementation: str, **inputs: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.set_attn_implementation(implementation)
    model.zero_grad()
    hidden = model(**inputs).last_hidden_state * inputs["attention_mask"][..., None]
    hidden.square().sum().backward()
    return hidden.detach(), [each.grad.clone() for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ModernBert", {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3}),
        ("Mistral", {"sliding_window": 7, "num_key_value_heads": 2}),
        ("Roberta", {}),
    ],
)
def test_results_and_gradients_agree_with_the_models_own_attention(
    name: str, options: dict[str, Any], padded: bool
) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SHAPE, **options)
    model = getattr(transformers, f"{name}Model")(config).eval()
    ids = torch.randint(4, 30, (2, 33))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 20:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if name == "Mistral":
        inputs["use_cache"] = False
    expected, expected_gradients = run(model, "eager", **inputs)
    result, gradients = run(model, "longformer", **inputs)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-4)


def test_an_encoder_without_a_window_gets_one() -> None:
    torch.manual_seed(0)
    register_attention("narrow", window=4)
    model = transformers.RobertaModel(transformers.RobertaConfig(**{**SHAPE, "num_hidden_layers": 1})).eval()
    model.set_attn_implementation("narrow")
    ids = torch.randint(4, 30, (1, 20))
    changed = ids.clone()
    changed[0, 10] = (ids[0, 10] - 4 + 1) % 26 + 4
    with torch.no_grad():
        difference = (model(ids).last_hidden_state - model(changed).last_hidden_state).abs().amax(-1)[0]
    assert [index for index in range(20) if difference[index] > 0] == [8, 9, 10, 11, 12]


def test_a_cache_is_refused() -> None:
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**SHAPE, num_key_value_heads=2))
    model.set_attn_implementation("longformer")
    with pytest.raises(ValueError, match="use_cache=False"):
        model.generate(torch.randint(4, 30, (1, 5)), max_new_tokens=3)
