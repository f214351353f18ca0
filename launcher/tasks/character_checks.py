"""What can be known of a character run before it starts: is the text there and long enough, do the lengths make sense.

The run file's own consistency is checked when it is loaded; this looks at the world around it.
"""

from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.shards.stream_dataset import PreparedData
from launcher.tasks.characters.config import CharacterRun
from longformer.errors import LongformerError


def check_surroundings(config: CharacterRun) -> list[str]:
    """Return notes on what is unusual but allowed.

    Raises:
        LongformerError: the source is missing, the prepared data is of another recipe, or it holds less
            than one batch for some phase.
        DataError: the prepared data is damaged.
    """
    data = prepared_data(config)
    if data is None:
        _check_source(config)
        note = f"{config.data.directory} does not exist yet: the data will be prepared when training starts"
        return [note, *_long_windows(config)]
    _check_recipe(config, data)
    _check_samples(config, data)
    return [*_short_text(config, data), *_long_windows(config)]


def prepared_data(config: CharacterRun) -> PreparedData | None:
    """Return the run's prepared data, None where it has not been prepared yet.

    Raises:
        DataError: it is damaged.
    """
    if not (config.data.directory / "manifest.json").exists():
        return None
    return PreparedData.open(config.data.directory)


def _check_source(config: CharacterRun) -> None:
    source = config.data.source
    if source is None:
        return
    if not source.exists():
        raise LongformerError(
            f"data.source {source} does not exist (working directory: {Path.cwd()}); name the file or folder "
            f"with data.source=path/to/{source.name}"
        )
    if source.is_file() and source.stat().st_size == 0:
        raise LongformerError(f"data.source {source} is empty; name another file")


def _check_recipe(config: CharacterRun, data: PreparedData) -> None:
    found = data.manifest.recipe
    if (found.name, found.limit_bytes) != (config.data.recipe, config.data.limit_bytes):
        raise DataError(
            f"data.directory {data.directory} holds {found}, the run asks for {config.data.recipe}, "
            f"limit_bytes {config.data.limit_bytes}; choose another data.directory"
        )


def _check_samples(config: CharacterRun, data: PreparedData) -> None:
    tokens = data.manifest.splits["train"].tokens
    for index, phase in enumerate(config.phases):
        samples = (tokens - 1) // phase.sequence_length
        if samples < phase.batch_size:
            longest = (tokens - 1) // phase.batch_size
            remedies = [f"at least {phase.batch_size * phase.sequence_length + 1:,} characters"]
            remedies += [f"sequences of at most {longest:,}"] * (longest > 0)
            remedies += [f"a batch of at most {samples:,}"] * (samples > 0)
            raise LongformerError(
                f"phases[{index}]: the training text of {tokens:,} characters gives {samples:,} sequences of "
                f"{phase.sequence_length:,}, less than one batch of {phase.batch_size}; use {' or '.join(remedies)}"
            )


def _short_text(config: CharacterRun, data: PreparedData) -> list[str]:
    return [
        f"the {name} text of {split.tokens:,} characters is shorter than evaluation.sequence_length "
        f"({config.evaluation.sequence_length:,}): no character is judged with full context"
        for name, split in data.manifest.splits.items()
        if name != "train" and split.tokens < config.evaluation.sequence_length
    ]


def _long_windows(config: CharacterRun) -> list[str]:
    return [
        f"phases[{index}]: the longest window ({max(phase.windows):,}) is longer than the sequences "
        f"({phase.sequence_length:,})"
        for index, phase in enumerate(config.phases)
        if max(phase.windows) > phase.sequence_length
    ]
