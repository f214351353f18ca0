"""Claims about the Longformer models that need no peer: memory, compilation, fresh and published weights."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from longformer.attention.packing import Packing
from longformer.attention.tokens import GlobalTokens, Tokens
from longformer.models import LongformerConfig, LongformerForMaskedLM, LongformerModel
from longformer.models.layers import Layer

SMALL = {
    "vocab_size": 500,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "attention_window": (4, 10),
    "max_position_embeddings": 1026,
    "type_vocab_size": 1,
}


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def test_the_loss_never_sees_all_logits_unless_they_are_asked_for() -> None:
    model = LongformerForMaskedLM(LongformerConfig(**SMALL))
    ids = torch.randint(3, 500, (1, 1000))
    with LargestTensor() as largest:
        output = model(ids, labels=ids)
        output.loss.backward()
    assert output.logits is None
    assert largest.numbers < 1000 * 500 / 2
    assert model(ids, labels=ids, output_logits=True).logits.shape == (1, 1000, 500)
    assert model(ids).logits.shape == (1, 1000, 500)


def test_a_batch_without_labels_has_a_loss_of_zero_and_gradients() -> None:
    model = LongformerForMaskedLM(LongformerConfig(**SMALL))
    ids = torch.randint(3, 500, (1, 20))
    loss = model(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert float(loss) == 0
    assert float(model.longformer.embeddings.word_embeddings.weight.grad.abs().max()) == 0


def test_a_text_alone_and_in_a_padded_batch_reads_the_same() -> None:
    model = LongformerModel(LongformerConfig(**SMALL)).eval()
    short, long = torch.randint(3, 500, (1, 37)), torch.randint(3, 500, (1, 61))
    for side in ("left", "right"):
        ids = torch.ones(2, 61, dtype=torch.long)
        place = slice(24, 61) if side == "left" else slice(0, 37)
        ids[0], ids[1, place] = long, short
        is_global = torch.zeros_like(ids)
        is_global[1, place.start + 3] = is_global[1, place.start + 9] = is_global[0, 40] = 1
        batch = model(ids, attention_mask=(ids != 1).long(), global_attention_mask=is_global).last_hidden_state
        alone = model(short, global_attention_mask=is_global[1:, place]).last_hidden_state
        torch.testing.assert_close(batch[1:, place], alone, rtol=1e-5, atol=1e-5)


def test_a_compiled_layer_with_padding_removed_serves_changing_lengths_without_compiling_again() -> None:
    layer = Layer(LongformerConfig(**SMALL), 1).eval()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")

    def compare(positions: int) -> None:
        mask = torch.ones(2, positions, dtype=torch.bool)
        mask[1, positions // 2 :] = False
        packing = Packing.of(mask)
        tokens = Tokens(mask, GlobalTokens.of((torch.arange(positions) < 3) & mask, 3), packing)
        hidden = packing.pack(torch.randn(2, positions, 16)).requires_grad_()
        torch.testing.assert_close(compiled(hidden, tokens), layer(hidden, tokens))

    compare(40)
    with torch.compiler.set_stance("fail_on_recompile"):
        for positions in (41, 97):
            compare(positions)


def test_fresh_weights_are_those_of_hugging_face_in_kind() -> None:
    model = LongformerForMaskedLM(LongformerConfig(**SMALL))
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() and name.endswith("weight"):
            assert bool((parameter == 1).all()), name
        elif name.endswith("bias"):
            assert bool((parameter == 0).all()), name
        else:
            assert 0.01 < float(parameter.std()) < 0.03, name
    for table in (model.longformer.embeddings.word_embeddings, model.longformer.embeddings.position_embeddings):
        assert float(table.weight[1].abs().max()) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_window": 5}, "attention_window must be even and positive, got 5"),
        ({"attention_window": (4, 0)}, "attention_window must be even and positive, got 0"),
        ({"attention_window": (4, 4, 4)}, r"attention_window must be one number or one per layer \(2\), got 3"),
        ({"num_attention_heads": 3}, "hidden_size must be a multiple of num_attention_heads"),
        ({"hidden_act": "sigmoid"}, "hidden_act must be one of gelu"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LongformerModel(LongformerConfig(**{**SMALL, **change}))


@pytest.fixture(scope="module")
def published_base() -> Path:
    """Return the folder of allenai's longformer-base-4096, or skip."""
    root = os.environ.get("LONGFORMER_PRETRAINED")
    if root is None or not (Path(root) / "longformer-base-4096").is_dir():
        pytest.skip("set LONGFORMER_PRETRAINED to a folder that holds longformer-base-4096")
    return Path(root) / "longformer-base-4096"


def test_the_published_base_model_gives_the_numbers_of_spec_1_8(published_base: Path) -> None:
    model = LongformerModel.from_pretrained(published_base)
    with torch.no_grad():
        short = model(torch.tensor([[0, 20920, 232, 328, 1437, 2]])).last_hidden_state
        ids = torch.tensor([[0, *[20920, 232, 328, 1437] * 1000, 2]])
        is_global = torch.zeros_like(ids)
        is_global[:, [1, 4, 21]] = 1
        long = model(ids, global_attention_mask=is_global).last_hidden_state
    expected = torch.tensor([0.0549, 0.1087, -0.1119, -0.0368, 0.0250])
    torch.testing.assert_close(short[0, 0, -5:], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(long.sum(), torch.tensor(74585.8594), atol=0, rtol=1e-4)
    torch.testing.assert_close(long.mean(), torch.tensor(0.0243), atol=1e-4, rtol=0)


def test_the_published_base_model_predicts_its_input_as_in_spec_1_8(published_base: Path) -> None:
    ids = torch.tensor([[0, *[20920, 232, 328, 1437] * 1000, 2]])
    with torch.no_grad():
        output = LongformerForMaskedLM.from_pretrained(published_base)(ids, labels=ids, output_logits=True)
    torch.testing.assert_close(output.loss, torch.tensor(0.0074), atol=1e-4, rtol=0)
    torch.testing.assert_close(output.logits.mean(), torch.tensor(-3.0348), atol=1e-4, rtol=0)
