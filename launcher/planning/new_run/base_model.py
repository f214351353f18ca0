"""The model that a new run starts from: one of the published ones by its family's name, or a folder."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_pipeline.errors import DataError
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.tasks import masked_lm_shape
from launcher.tasks.summarization import task as summarization
from longformer.errors import LongformerError
from longformer.interop import convert_encoder, convert_led
from longformer.interop.checkpoint_files import CONFIG_FILE, read_json

TaskName = Literal["mlm", "summarize"]

FAMILIES: dict[TaskName, Collection[str]] = {"mlm": convert_encoder.FAMILIES, "summarize": convert_led.FAMILIES}
NAMED = {"roberta": "roberta-base", "bart": "bart-base", "longformer": "longformer-base-4096", "led": "led-base-16384"}
"""The published model that a family's name stands for."""
_SHAPES: dict[str, dict[str, Any]] = dict([*masked_lm_shape.PUBLISHED.items(), *summarization.PUBLISHED.items()])


@dataclass(frozen=True)
class Start:
    """What is known of the model before the run."""

    source: Path
    """Its folder, which may not be there yet."""
    published: str | None
    """Whose shape it has until then; None where the folder tells."""
    settings: dict[str, Any]
    """Its config.json."""
    tokenizer: TextTokenizer | None
    """None while it is not there."""

    @property
    def length(self) -> int:
        """Tokens that it reads."""
        if self.settings["model_type"] in convert_encoder.FAMILIES:
            return convert_encoder.source_length(self.settings)
        known = self.settings.get("max_encoder_position_embeddings")
        return int(known or self.settings["max_position_embeddings"])

    @property
    def window(self) -> int | None:
        """Neighbours that a token sees where the model is long already; None where it sees all."""
        windows = self.settings.get("attention_window")
        return int(windows[0] if isinstance(windows, list) else windows) if windows else None


def find_start(name: str, task: TaskName) -> Start:
    """Return the model that `--from` names.

    Raises:
        LongformerError: there is no such family or folder, its files are damaged, or it does not fit the task.
    """
    published = NAMED.get(name)
    source = Path("models", published) if published else Path(name)
    is_there = (source / CONFIG_FILE).is_file()
    if not is_there and published is None:
        raise LongformerError(f"--from {name} is no folder with a model; give one, or one of {', '.join(NAMED)}")
    settings = read_json(source / CONFIG_FILE) if is_there or published is None else _SHAPES[published]
    family = settings.get("model_type")
    if family not in FAMILIES[task]:
        raise LongformerError(
            f"--task {task} takes models of the families {', '.join(FAMILIES[task])}; --from {name} is a {family}"
        )
    return Start(source, None if is_there else published, settings, _tokenizer(source) if is_there else None)


def _tokenizer(source: Path) -> TextTokenizer:
    try:
        return TextTokenizer.open(source)
    except DataError as error:
        raise LongformerError(f"--from {source}: {error}") from error
