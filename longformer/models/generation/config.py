"""How an LED writes: Hugging Face's settings under their names, with their defaults and their order of precedence."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from longformer.errors import LongformerError

# Hugging Face's settings that are not to be had here, with the values at which they change nothing.
NEUTRAL: dict[str, Any] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "min_p": None,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "penalty_alpha": None,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "suppress_tokens": None,
    "typical_p": 1.0,
}


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How a text is written; lengths count the decoder's first token.

    Raises:
        ValueError: a value is out of range; the message names the argument.
    """

    decoder_start_token_id: int
    pad_token_id: int
    """Fills up texts that are shorter than others of a batch."""
    eos_token_id: tuple[int, ...] = ()
    """The tokens that end a text."""
    max_length: int = 21
    """Tokens of the longest text."""
    min_length: int = 0
    """No text ends before it has so many tokens."""
    num_beams: int = 1
    """Texts that are followed at the same time; with 1 the most probable token is always taken."""
    do_sample: bool = False
    """Draw tokens, with PyTorch's own random numbers, instead of taking the most probable ones."""
    temperature: float = 1.0
    """With do_sample: divides the logits."""
    top_k: int = 50
    """With do_sample: draw among so many most probable tokens; 0 = all."""
    top_p: float = 1.0
    """With do_sample: draw among the most probable tokens that have this probability together."""
    length_penalty: float = 1.0
    """Beams are compared by log-probability / tokens ** length_penalty: above 0 favours long texts."""
    early_stopping: bool | Literal["never"] = False
    """When a search by beams ends: True = as soon as num_beams texts are complete, False = when a better one is
    unlikely, "never" = when there cannot be a better one."""
    no_repeat_ngram_size: int = 0
    """So many tokens in a row never occur twice; 0 = they may."""
    forced_bos_token_id: int | None = None
    """The first token that is written."""
    forced_eos_token_id: tuple[int, ...] = ()
    """One of them is the last token of a text of the greatest length."""

    def __post_init__(self) -> None:
        for name, least in (("max_length", 2), ("num_beams", 1), ("top_k", 0), ("no_repeat_ngram_size", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}; do_sample=False leaves no chance")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f'early_stopping must be True, False or "never", got {self.early_stopping!r}')

    @classmethod
    def of(cls, defaults: Mapping[str, Any], choices: Mapping[str, Any]) -> Self:
        """Returns the settings of a call.

        Args:
            defaults: what generation_config.json or config.json says, other keys included.
            choices: arguments of the call, which go first; None = not given.

        Raises:
            LongformerError: the defaults ask for something that is not to be had here.
            ValueError: a choice does not exist, or its value is refused.
        """
        new_tokens = choices.get("max_new_tokens")
        if new_tokens is not None and new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {new_tokens}")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(choices.keys() - known - {"max_new_tokens", "min_new_tokens"})
        if unknown:
            raise ValueError(f"generate has no argument {unknown[0]}")
        for name, neutral in NEUTRAL.items():
            if defaults.get(name, neutral) not in (neutral, None):
                raise LongformerError(
                    f"the model's settings for generation ask for {name} {defaults[name]}, which is not supported; "
                    "remove it from generation_config.json"
                )
        values = {name: value for given in (defaults, choices) for name, value in given.items() if value is not None}
        # Those of the decoder's first token and of what follows.
        for end, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
            if new in values:
                values[end] = values[new] + 1
        for name in ("eos_token_id", "forced_eos_token_id"):
            if isinstance(values.get(name), int):
                values[name] = (values[name],)
        return cls(**{name: values[name] for name in known & values.keys()})
