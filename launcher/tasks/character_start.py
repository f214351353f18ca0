"""May a character run start from this model: of its shape, and with the characters of its text?"""

from pathlib import Path

import torch

from data_pipeline.shards.stream_dataset import PreparedData
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.characters.phase import VOCABULARY_FILE
from launcher.tasks.characters.trained_model import TrainedModel
from longformer.errors import LongformerError
from longformer.models.char_lm.model import CharacterLM


def check_start(config: CharacterRun, model: Path, data: Path) -> None:
    """Check that the first phase can begin with the weights of a model directory.

    Raises:
        LongformerError: it is no character model, or has another shape or other characters.
    """
    if not (model / VOCABULARY_FILE).is_file():
        raise LongformerError(
            f"init: {config.init} is no character model (no {VOCABULARY_FILE}), but the run trains one"
        )
    vocabulary = PreparedData.open(data).vocabulary
    if TrainedModel.load(model).vocabulary != vocabulary:
        raise LongformerError(
            f"init: {config.init} reads other characters than {data} holds; prepare the data with the recipe that the "
            "model was trained on"
        )
    with torch.random.fork_rng():
        CharacterLM(config.character_model(0, len(vocabulary))).load_weights(model)
