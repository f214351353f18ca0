"""May a run of documents start from this Longformer or LED instead of converting its source?"""

from pathlib import Path

from longformer.errors import LongformerError
from longformer.interop.checkpoint_files import CONFIG_FILE, read_json


def check_long_start(asked: str | None, model: Path, *, family: str, length: int, needed: str | None = None) -> None:
    """Check that a model folder is of a family and reads enough tokens.

    Args:
        asked: what `init` names, for the message.
        model: the folder.
        family: Hugging Face's model_type.
        length: tokens of the longest phase.
        needed: a key that config.json must have, if any.

    Raises:
        LongformerError: it is not, it does not, or its config.json is damaged.
    """
    settings = read_json(model / CONFIG_FILE)
    if settings.get("model_type") != family:
        raise LongformerError(
            f"init: {asked} is a model of the family {settings.get('model_type')}; this run trains {family}"
        )
    positions = settings.get("max_encoder_position_embeddings")
    if positions is None:  # of a Longformer, whose first positions after the padding's are its own
        positions = settings["max_position_embeddings"] - settings.get("pad_token_id", 1) - 1
    if positions < length:
        raise LongformerError(
            f"init: {asked} reads {positions:,} tokens, but a phase has {length:,}; shorten the phase, or make the "
            "model longer with `longformer convert`"
        )
    if needed is not None and needed not in settings:
        raise LongformerError(f"init: {asked} has no {needed} in {CONFIG_FILE}, which model.freeze_pretrained needs")
