"""Opening what a run has learned: the newest finished phase of a run, or a model directory by itself."""

from dataclasses import dataclass
from pathlib import Path

from data_pipeline.tokenizers.byte import Vocabulary
from launcher.runs.run import Run
from longformer.errors import LongformerError
from longformer.models.char_lm.model import CharacterLM
from longformer.training.checkpoints.manifest import damage


@dataclass(frozen=True)
class TrainedModel:
    """A model that can be asked, and the table between its tokens and text."""

    model: CharacterLM
    vocabulary: Vocabulary
    directory: Path
    """Where it was read from."""

    @classmethod
    def load(cls, directory: Path) -> "TrainedModel":
        """Read a model directory (config.json, model.safetensors, vocabulary.json).

        Raises:
            LongformerError: the model is missing or damaged, or has another number of characters than its vocabulary.
            DataError: vocabulary.json is missing or damaged.
        """
        model = CharacterLM.from_pretrained(directory)
        vocabulary = Vocabulary.load(directory / "vocabulary.json")
        if len(vocabulary) != model.config.vocabulary_size:
            raise LongformerError(
                f"{directory}: the model knows {model.config.vocabulary_size} characters, but vocabulary.json lists "
                f"{len(vocabulary)}; copy the file from the data the model was trained on"
            )
        return cls(model, vocabulary, directory)


def newest_result(run: Run) -> Path:
    """Return the result directory of the last phase of a run that is done, checked file by file.

    Raises:
        LongformerError: this is not a run directory, no phase is done yet, or the result is damaged.
    """
    run.paths.identity()
    done = run.finished_results()
    if not done:
        raise LongformerError(
            f"{run.paths.root} has no finished phase yet; go on with: longformer resume {run.paths.root}"
        )
    problem = damage(done[-1])
    if problem:
        raise LongformerError(f"{done[-1]} is damaged ({problem}); remove it, then: longformer resume {run.paths.root}")
    return done[-1]
