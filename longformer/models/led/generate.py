"""Writing texts with an LED: the encoder reads every document once, the decoder caches keys and values of its text.

The beams of a document share its keys and values, and what is complete leaves the batch; the tokens are those that
Hugging Face 5 writes with the same settings.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from longformer.files import read_json, write_json
from longformer.interop.checkpoint_files import GENERATION_FILE, check_unused
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.generation.beam_search import EMPTY, Beams
from longformer.models.generation.config import GenerationSettings
from longformer.models.generation.logits_processors import process_logits, sampled
from longformer.models.led.cache import KeyValueCache
from longformer.models.led.config import LEDConfig
from longformer.models.led.decoder import LEDDecoder
from longformer.models.led.encoder import LEDEncoder


class GeneratesText(PretrainedModel):
    """Base of a model with encoder, decoder and `logits` that can write."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config)
        self.generation_config: dict[str, Any] = {}
        """Content of generation_config.json; empty where there is none: then config.json holds the defaults."""

    @classmethod
    def from_pretrained(cls, directory: Path | str, **options: Any) -> Self:
        model = super().from_pretrained(directory, **options)
        path = Path(directory) / GENERATION_FILE
        if path.is_file():
            model.generation_config = read_json(path)
        return model

    def save_pretrained(self, directory: Path | str) -> None:
        directory = Path(directory)
        check_unused(directory)
        if self.generation_config:
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / GENERATION_FILE, self.generation_config)
        super().save_pretrained(directory)

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns (..., vocab_size) from what the decoder gave, (..., d_model)."""
        raise NotImplementedError

    def get_encoder(self) -> LEDEncoder:
        """Returns the encoder."""
        raise NotImplementedError

    def get_decoder(self) -> LEDDecoder:
        """Returns the decoder."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        """Writes a text about every document.

        Args:
            input_ids: (documents, positions) long.
            attention_mask: (documents, positions), 1 = token, 0 = padding; None = all but `pad_token_id`.
            global_attention_mask: (documents, positions), 1 = attends to all tokens and is seen by all; None = none.
            settings: fields of `GenerationSettings`, and max_new_tokens and min_new_tokens, which do not count the
                decoder's first token; what is not given is as in generation_config.json or else config.json.

        Returns:
            (documents, tokens) long, from the decoder's first token on, shorter texts filled up with `pad_token_id`.

        Raises:
            LongformerError: ids or masks hold values that the model cannot take, or a document is too long.
            ValueError: a setting does not exist or is out of range.
        """
        chosen = self._settings(settings)
        if attention_mask is None and self.config.pad_token_id not in chosen.eos_token_id:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        states = self.get_encoder()(input_ids, attention_mask, global_attention_mask).last_hidden_state
        token_mask = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()
        cache = self.get_decoder().new_cache(states, token_mask)
        write = beam_search if chosen.num_beams > 1 else token_by_token
        texts = write(self, cache, chosen)
        longest = int((texts != EMPTY).sum(1).max())
        return texts[:, :longest].masked_fill(texts[:, :longest] == EMPTY, chosen.pad_token_id)

    def _settings(self, choices: dict[str, Any]) -> GenerationSettings:
        names = ("decoder_start_token_id", "pad_token_id", "eos_token_id")
        own = {name: getattr(self.config, name) for name in names}
        settings = GenerationSettings.of(own | (self.generation_config or dict(self.config.other)), choices)
        most = self.config.max_decoder_position_embeddings + 1
        if settings.max_length > most:
            positions = f"{most - 1}, the positions of the decoder"
            if choices.get("max_new_tokens") is not None:
                raise ValueError(f"max_new_tokens must be at most {positions}, got {choices['max_new_tokens']}")
            raise ValueError(f"max_length must be at most {most}, one more than {positions}, got {settings.max_length}")
        return settings


def next_logits(model: GeneratesText, cache: KeyValueCache, tokens: Tensor) -> Tensor:
    """Returns (rows, vocabulary) float32 behind the last token of every row, (rows,) long."""
    hidden = model.get_decoder()(tokens[:, None], cache=cache).last_hidden_state
    return model.logits(hidden[:, 0]).float()


def token_by_token(model: GeneratesText, cache: KeyValueCache, settings: GenerationSettings) -> Tensor:
    """Returns one text per document, (documents, max_length): the most probable token each time, or a sampled one."""
    texts = empty_texts(cache, settings)
    texts[:, 0] = settings.decoder_start_token_id
    ends = texts.new_tensor(settings.eos_token_id)
    active = torch.arange(len(texts), device=texts.device)
    for length in range(1, settings.max_length):
        written = texts[active, :length]
        scores = process_logits(next_logits(model, cache, written[:, -1]), written, settings)
        if settings.do_sample:
            # Sampled for all documents, so that no text depends on when others ended.
            noise = torch.empty(len(texts), scores.shape[1], device=texts.device).exponential_()
            tokens = sampled(scores, 1, noise[active])[:, 0]
        else:
            tokens = scores.argmax(-1)
        texts[active, length] = tokens
        remaining = (~torch.isin(tokens, ends)).nonzero()[:, 0]
        if not len(remaining):
            break
        if len(remaining) < len(active):
            active = active[remaining]
            cache.select_documents(remaining)
            cache.select_sequences(remaining)
    return texts


def beam_search(model: GeneratesText, cache: KeyValueCache, settings: GenerationSettings) -> Tensor:
    """Returns the best text that a search by beams finds per document, (documents, max_length)."""
    texts = empty_texts(cache, settings)
    active = torch.arange(len(texts), device=texts.device)
    beams = Beams(len(texts), settings, texts.device)
    while len(active):
        written = beams.written.flatten(0, 1)
        scores = next_logits(model, cache, written[:, -1]).log_softmax(-1)
        scores = process_logits(scores, written, settings)
        noise = None
        if settings.do_sample:
            noise = torch.empty(len(texts), settings.num_beams * scores.shape[1], device=texts.device)
            noise = noise.exponential_()[active]
        rows = beams.advance(scores, noise)
        done = beams.done()
        texts[active[done]] = beams.complete[done, 0]
        if done.any():
            remaining = (~done).nonzero()[:, 0]
            active, rows = active[remaining], rows[remaining]
            beams.keep(remaining)
            cache.select_documents(remaining)
        cache.select_sequences(rows.flatten())
    return texts


def empty_texts(cache: KeyValueCache, settings: GenerationSettings) -> Tensor:
    """Returns a place for one text per document, (documents, max_length) long."""
    keys = cache.source[0].key
    return torch.full((len(keys), settings.max_length), EMPTY, device=keys.device)
