"""Claims: a decoder with a cache gives what reading everything again gives, beams without copies of the source."""

import pytest
import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.models import LEDConfig, LEDForConditionalGeneration


@pytest.fixture(scope="module")
def model() -> LEDForConditionalGeneration:
    config = LEDConfig(
        vocab_size=30,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        attention_window=(4, 8),
        max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=32,
    )
    torch.manual_seed(0)
    model = LEDForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def documents(count: int) -> tuple[Tensor, Tensor]:
    """Return ids and a mask; every document but the first is padded."""
    ids, mask = torch.randint(3, 30, (count, 40)), torch.ones(count, 40, dtype=torch.bool)
    for row in range(1, count):
        mask[row, 40 - 5 * row :] = False
    return ids, mask


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3], [9]])
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_reading_piece_by_piece_equals_reading_all_at_once(
    model: LEDForConditionalGeneration, pieces: list[int], padded: bool
) -> None:
    ids, mask = documents(2)
    written = torch.randint(3, 30, (2, 9))
    written_mask = torch.ones_like(written)
    if padded:
        written_mask[1, :3] = 0
    asked = {"output_attentions": True, "output_hidden_states": True}
    whole = model(ids, mask, written, written_mask if padded else None, **asked)
    cache = model.led.decoder.new_cache(whole.encoder_last_hidden_state, mask)
    for stop, piece in zip(torch.tensor(pieces).cumsum(0).tolist(), pieces, strict=True):
        part = slice(stop - piece, stop)
        output = model(
            decoder_input_ids=written[:, part],
            decoder_attention_mask=written_mask[:, :stop] if padded else None,
            past_key_values=cache,
            **asked,
        )
        assert output.past_key_values is cache
        assert cache.length == stop
        torch.testing.assert_close(output.logits, whole.logits[:, part])
        torch.testing.assert_close(output.decoder_attentions[1], whole.decoder_attentions[1][:, :, part, :stop])
        torch.testing.assert_close(output.cross_attentions[1], whole.cross_attentions[1][:, :, part])


@torch.no_grad()
def test_beams_of_a_document_read_its_one_set_of_keys(model: LEDForConditionalGeneration) -> None:
    ids, mask = documents(3)
    states = model.get_encoder()(ids, mask).last_hidden_state
    decoder, beams = model.led.decoder, 4
    written = torch.randint(3, 30, (3 * beams, 6))
    expected = decoder(
        written, states=states.repeat_interleave(beams, 0), source_mask=mask.repeat_interleave(beams, 0)
    ).last_hidden_state
    cache = decoder.new_cache(states, mask)
    addresses = [each.key.data_ptr() for each in cache.source]
    for position in range(3):
        output = decoder(written[:, position, None], cache=cache, output_attentions=True)
        torch.testing.assert_close(output.last_hidden_state[:, 0], expected[:, position])
        assert output.cross_attentions[0].shape == (3 * beams, 4, 1, 40)
    cache.select_sequences(torch.arange(3 * beams).flip(0).view(3, beams).flip(0).flatten())
    assert [each.key.data_ptr() for each in cache.source] == addresses
    assert cache.source[0].key.shape[0] == 3


@torch.no_grad()
def test_rows_go_on_from_the_rows_they_are_given_and_documents_can_leave(model: LEDForConditionalGeneration) -> None:
    ids, mask = documents(3)
    states = model.get_encoder()(ids, mask).last_hidden_state
    decoder = model.led.decoder
    written = torch.randint(3, 30, (6, 5))
    cache = decoder.new_cache(states, mask)
    decoder(written, cache=cache)
    # Document 1 has left; both beams of document 0 go on from its second one, those of document 2 change places.
    rows = torch.tensor([1, 1, 5, 4])
    cache.select_sequences(rows)
    cache.select_documents(torch.tensor([0, 2]))
    following = torch.randint(3, 30, (4, 1))
    result = decoder(following, cache=cache).last_hidden_state[:, -1]
    source = torch.tensor([0, 0, 2, 2])
    expected = decoder(torch.cat([written[rows], following], 1), states=states[source], source_mask=mask[source])
    torch.testing.assert_close(result, expected.last_hidden_state[:, -1])


def test_a_text_may_be_written_up_to_the_last_position_and_no_further(model: LEDForConditionalGeneration) -> None:
    ids, mask = documents(1)
    cache = model.led.decoder.new_cache(model.get_encoder()(ids, mask).last_hidden_state, None)
    model(decoder_input_ids=ids[:, :32], past_key_values=cache)
    with pytest.raises(LongformerError, match="the decoder is given 33 tokens, it has positions for 32"):
        model(decoder_input_ids=ids[:, :1], past_key_values=cache)
