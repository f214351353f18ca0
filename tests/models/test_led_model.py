"""Claims about the LED models that need no peer: memory, precision, fresh and published weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from longformer.models import LEDConfig, LEDForConditionalGeneration, LEDModel
from tests.models.largest_tensor import LargestTensor

SMALL: dict[str, Any] = {
    "vocab_size": 500,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "attention_window": (4, 10),
    "max_encoder_position_embeddings": 2048,
    "max_decoder_position_embeddings": 1024,
}


def test_the_loss_never_sees_all_logits_unless_they_are_asked_for() -> None:
    model = LEDForConditionalGeneration(LEDConfig(**SMALL))
    ids = torch.randint(3, 500, (1, 1000))
    with LargestTensor() as largest:
        output = model(ids[:, :50], labels=ids)
        output.loss.backward()
    assert output.logits is None
    assert largest.numbers < 1000 * 500 / 2
    assert model(ids, labels=ids, output_logits=True).logits.shape == (1, 1000, 500)
    assert model(ids, decoder_input_ids=ids).logits.shape == (1, 1000, 500)


def test_the_encoder_makes_nothing_of_positions_times_positions() -> None:
    encoder = LEDModel(LEDConfig(**SMALL)).encoder
    sizes = []
    for positions in (512, 2048):
        ids, is_global = torch.randint(3, 500, (1, positions)), torch.zeros(1, positions, dtype=torch.long)
        is_global[:, 0] = 1
        with LargestTensor() as largest:
            encoder(ids, global_attention_mask=is_global).last_hidden_state.sum().backward()
        sizes.append(largest.numbers)
    assert sizes[1] <= 4 * sizes[0]


def test_a_text_alone_and_in_a_padded_batch_reads_the_same() -> None:
    model = LEDModel(LEDConfig(**SMALL)).eval()
    short, long = torch.randint(3, 500, (1, 37)), torch.randint(3, 500, (1, 61))
    written = torch.randint(3, 500, (2, 9))
    ids = torch.ones(2, 61, dtype=torch.long)
    ids[0], ids[1, :37] = long, short
    is_global = torch.zeros_like(ids)
    is_global[1, [3, 9]] = is_global[0, 40] = 1
    batch = model(ids, (ids != 1).long(), written, global_attention_mask=is_global)
    alone = model(short, decoder_input_ids=written[1:], global_attention_mask=is_global[1:, :37])
    torch.testing.assert_close(batch.last_hidden_state[1:], alone.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        batch.encoder_last_hidden_state[1:, :37], alone.encoder_last_hidden_state, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_numbers_and_gradients_under_padding(dtype: torch.dtype) -> None:
    model = LEDForConditionalGeneration(LEDConfig(**SMALL)).to(dtype)
    ids, labels = torch.randint(3, 500, (3, 45)), torch.randint(3, 500, (3, 8))
    mask, written_mask = torch.ones_like(ids), torch.ones_like(labels)
    mask[0, :7], mask[1, 3:], mask[2], written_mask[0, :3] = 0, 0, 0, 0
    output = model(
        ids,
        mask,
        decoder_attention_mask=written_mask,
        labels=labels,
        global_attention_mask=mask * (torch.arange(45) % 9 == 0),
    )
    output.loss.backward()
    assert bool(output.encoder_last_hidden_state.isfinite().all())
    assert bool(output.loss.isfinite())
    assert all(bool(each.grad.isfinite().all()) for each in model.parameters() if each.grad is not None)


def test_dropped_layers_do_nothing_and_only_while_training() -> None:
    config = LEDConfig(**SMALL, encoder_layerdrop=1.0, decoder_layerdrop=1.0, dropout=0.0)
    model = LEDModel(config)
    ids = torch.randint(3, 500, (1, 12))
    for part in ("encoder", "decoder"):
        output = model(ids, output_hidden_states=True)
        states = getattr(output, f"{part}_hidden_states")
        assert len(states) == 1
    assert len(model.eval()(ids, output_hidden_states=True).encoder_hidden_states) == 3


def test_fresh_weights_are_those_of_hugging_face_in_kind() -> None:
    model = LEDForConditionalGeneration(LEDConfig(**SMALL))
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            assert bool((parameter == 1).all()), name
        elif name.endswith("bias"):
            assert bool((parameter == 0).all()), name
        else:
            assert 0.01 < float(parameter.detach().std()) < 0.03, name
    assert float(model.led.shared.weight[1].detach().abs().max()) == 0
    assert float(model.led.encoder.embed_positions.weight[1].detach().abs().max()) > 0
    assert float(model.final_logits_bias.abs().max()) == 0


@pytest.mark.parametrize(("size", "millions"), [("base", 161.8), ("large", 459.8)])
def test_published_shapes_have_the_published_number_of_parameters(size: str, millions: float) -> None:
    shape = {} if size == "large" else {"d_model": 768, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
    if size == "base":
        shape |= {
            f"{part}_{each}": 12 if each == "attention_heads" else 6
            for part in ("encoder", "decoder")
            for each in ("layers", "attention_heads")
        }
    with torch.device("meta"):
        model = LEDForConditionalGeneration(LEDConfig(attention_window=1024, **shape))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_published_base_model_gives_the_numbers_of_spec_1_8(published: Callable[[str], Path]) -> None:
    folder = published("led-base-16384")
    ids = torch.tensor([[0, 31414, 232, 328, 740, 1140, 12695, 69] * 512])
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long(), "decoder_input_ids": ids[:, :1024]}
    with torch.no_grad():
        hidden = LEDModel.from_pretrained(folder)(**inputs).last_hidden_state
        logits = LEDForConditionalGeneration.from_pretrained(folder)(**inputs).logits
    expected = [[2.3050, 2.8279, 0.6531], [-1.8457, -0.1455, -3.5661], [-1.0186, 0.4586, -2.2043]]
    torch.testing.assert_close(hidden[0, :3, :3], torch.tensor(expected), atol=1e-3, rtol=0)
    expected = [[33.6507, 6.4572, 16.8089], [5.8739, -2.4238, 11.2902], [-3.2139, -4.3149, 4.2783]]
    torch.testing.assert_close(logits[0, :3, :3], torch.tensor(expected), atol=1e-3, rtol=0)
