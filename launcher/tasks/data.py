"""What a task says of its data, and what follows for every task: preparing, checking and counting it.

Nothing here imports torch: a run file is checked without it.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from data_pipeline.prepare.parallel import TaskMap
from data_pipeline.prepare.prepare import check_same, prepare
from data_pipeline.sampling.base import Sequences, check_enough
from data_pipeline.shards.manifest import is_prepared
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import SPLITS, Corpus
from data_pipeline.sources.files import source_signature
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.config.run_config import RunConfig
from launcher.tasks.sections import PretrainedRun
from launcher.tracking.registry.open_model import OpenedModel, described_model, is_registered
from longformer.errors import LongformerError
from longformer.interop.model_folder import CONFIG_FILE, hub_hint, read_config, weight_names
from longformer.interop.sources import ENCODERS, check_convertible, check_length, source_length
from longformer.interop.tokenizer import (
    for_words,
    has_tokenizer,
    open_content,
    read_tokenizer,
    tokenizer_content,
    with_tokens,
)

if TYPE_CHECKING:  # brings torch
    from data_pipeline.loading.batches import Batches

Config = TypeVar("Config", bound=RunConfig)
PretrainedConfig = TypeVar("PretrainedConfig", bound=PretrainedRun)


@dataclass(frozen=True)
class InputData:
    """What a run learns from, prepared."""

    directory: Path
    fingerprint: str
    """Equal exactly when the content is equal."""


@dataclass(frozen=True)
class RunCorpus:
    """One corpus of a run."""

    directory: Path
    """Where its prepared form lies, or will lie."""
    corpus: Callable[[], Corpus]
    """Finds its files; raises DataError where there are none."""
    tokenizer: Callable[[], Path] | None
    """Finds the folder or file of its tokenizer; None: it brings its own, of characters."""
    damaged_allowed: int = 0
    """So many examples may be unreadable."""
    special_tokens: tuple[str, ...] | None = None
    """Special tokens that stand for themselves in documents; None: those that the tokenizer's folder names."""
    is_words: bool = False
    """Whether its texts are words, which the tokenizer is given one by one."""
    added_tokens: tuple[str, ...] = ()
    """Special tokens that the task adds to those of the tokenizer."""

    @property
    def is_prepared(self) -> bool:
        """Whether that was done."""
        return is_prepared(self.directory)

    def prepare(self, task_map: TaskMap | None) -> PreparedData:
        """Makes it ready, or finds it unchanged; arguments and errors as in `data_pipeline.prepare.prepare`."""
        return prepare(
            self.corpus(),
            output=self.directory,
            tokenizer=None if self.tokenizer is None else self.opened_tokenizer(),
            damaged_allowed=self.damaged_allowed,
            # Characters are read, not tokenised: there is no work to hand out.
            task_map=None if self.tokenizer is None else task_map,
        )

    def check(self, tokenizer: TextTokenizer | None) -> list[str]:
        """Returns notes on it: what was left out, or that it is not prepared yet.

        Raises:
            DataError: what lies there is something else, or has nothing to learn from or to evaluate on; or its first
                example cannot be read.
        """
        source = self.corpus()
        if not self.is_prepared:
            source.first(damaged_allowed=self.damaged_allowed)
            return [f"{self.directory} does not exist yet: it will be prepared when training starts"]
        prepared = self.open()
        check_same(prepared, tokenizer, source)
        for split in SPLITS:
            prepared.split(split)  # refuses an empty one
        record = prepared.manifest.corpus
        notes = [f"{self.directory}: {line}" for line in record.omissions]
        if record.signature != source_signature(source.files):
            notes.append(
                f"{self.directory}: the source has changed since it was prepared; training reads it again, and stops "
                "where its text is another"
            )
        return notes

    def opened_tokenizer(self) -> TextTokenizer:
        """Returns its tokenizer.

        Raises:
            LongformerError, DataError: there is none, or it is not one that can be used.
        """
        assert self.tokenizer is not None, "it brings its own"
        return open_tokenizer(
            self.tokenizer(), self.special_tokens, is_words=self.is_words, added_tokens=self.added_tokens
        )

    def open(self) -> PreparedData:
        """Returns what was prepared.

        Raises:
            DataError: nothing was, or it is damaged.
        """
        return PreparedData.open(self.directory)


@dataclass(frozen=True)
class BatchShare:
    """Which part of every global batch a rank gets."""

    rank: int
    world_size: int
    micro_batch_size: int


@dataclass(frozen=True)
class TaskData(ABC, Generic[Config]):
    """The data of one run. Made from the run file alone, anywhere and at no cost; holds nothing that changes."""

    config: Config
    directory: Path
    """Of the prepared data: as in the run file, or where a run found it when it was created."""

    @abstractmethod
    def corpora(self) -> list[RunCorpus]:
        """Returns the corpora that the run learns from."""

    @abstractmethod
    def sequences(self, index: int) -> Sequences:
        """Returns the endless training sequences of a phase.

        Raises:
            DataError: prepared data is missing or damaged.
        """

    @property
    def bucket_batches(self) -> int:
        """Sequences of so many global batches are gathered by length."""
        return 1

    def batches(self, index: int, share: BatchShare, skipped: Collection[int]) -> "Batches":
        """Returns a rank's batches of a phase.

        Args:
            index: of the phase.
            share: the rank's part.
            skipped: positions in the phase's order where global batches begin that are not to be trained on.
        """
        from data_pipeline.loading.batches import Batches

        return Batches(
            self.sequences(index),
            global_batch_size=self.config.phases[index].batch_size,
            micro_batch_size=share.micro_batch_size,
            rank=share.rank,
            world_size=share.world_size,
            bucket_batches=self.bucket_batches,
            seed=self.seed(index),
            workers=self.config.data.loader_workers,
            skipped=skipped,
        )

    def seed(self, index: int) -> int:
        """Returns the seed of a phase's order: phases of equal length would otherwise see the same order."""
        return self.config.seed + index

    def check(self) -> list[str]:
        """Returns notes on what is unusual but allowed in the world around the run file.

        Unless a task says otherwise: the tokenizers fit; where the data is prepared, it is that of the run file, with a
        batch for every phase and something to evaluate on; where it is not, the first example of its sources is read.

        Raises:
            LongformerError, DataError: the run cannot start.
        """
        notes = self.check_corpora()
        if self.is_prepared:
            for index, phase in enumerate(self.config.phases):
                check_enough(self.sequences(index), global_batch_size=phase.batch_size)
        return notes

    def check_corpora(self) -> list[str]:
        """Returns notes on the corpora, which share one tokenizer; errors as in `check`."""
        corpora = self.corpora()
        tokenizer = None if corpora[0].tokenizer is None else corpora[0].opened_tokenizer()
        if tokenizer is not None:
            self.check_tokenizer(tokenizer)
        return [note for each in corpora for note in each.check(tokenizer)]

    def described(self, model: str) -> OpenedModel:
        """Returns a folder with config and tokenizer of a folder, a run or a registered model, and which that is.

        Raises:
            LongformerError: there is no such run or registered model.
            WorkFailed: MLflow does not answer or refuses.
        """
        return described_model(model, store=self.config.tracking.uri)

    def check_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Checks that the tokenizer is one for the model.

        Raises:
            LongformerError: it is not.
        """

    def in_steps(self) -> Config:
        """Returns the config with everything in steps that the run file gives in epochs, from the prepared data.

        Raises:
            LongformerError: the data that this depends on is not prepared yet, or a warm-up is longer than its phase.
            DataError: prepared data is damaged.
        """
        counting = [index for index, phase in enumerate(self.config.phases) if phase.counts_epochs]
        if not counting:
            return self.config
        if not self.is_prepared:
            raise LongformerError(
                f"phases[{counting[0]}] counts epochs: how many steps they are is known once the data is prepared, "
                "which training does first"
            )
        phases = [
            phase.in_steps(self.sequences(index).per_epoch) if phase.counts_epochs else phase
            for index, phase in enumerate(self.config.phases)
        ]
        return self.config.model_copy(update={"phases": tuple(phases)})

    @property
    def is_prepared(self) -> bool:
        """Whether all corpora have been made ready."""
        return all(each.is_prepared for each in self.corpora())

    def prepare(self, task_map: TaskMap | None = None) -> InputData:
        """Makes all corpora ready, or finds them unchanged.

        Args:
            task_map: where the work is done; None: on this machine.

        Raises:
            DataError: a source is missing or damaged, or something else lies where the data should be.
        """
        return InputData(self.directory, _joined([each.prepare(task_map).fingerprint for each in self.corpora()]))

    def fingerprint(self) -> str:
        """Returns the fingerprint of the prepared data as it lies there now.

        Raises:
            DataError: it is missing or damaged.
        """
        return _joined([each.open().fingerprint for each in self.corpora()])

    def training_shards(self) -> int | None:
        """Returns how many shards there are to learn from; None until they are prepared."""
        if not self.is_prepared:
            return None
        return sum(len(each.open().manifest.splits["train"]) for each in self.corpora())


@dataclass(frozen=True)
class PretrainedData(TaskData[PretrainedConfig], Generic[PretrainedConfig]):
    """The data of a run whose model is made of `model.source`."""

    families: ClassVar[Collection[str]] = tuple(ENCODERS)
    """Values of `model_type` that the source may have."""
    trained: ClassVar[Collection[str]] = ("longformer",)
    """Those that the model may have that is made of it."""
    added_tokens: ClassVar[tuple[str, ...]] = ()
    """Special tokens that model and tokenizer get beside those of the source."""

    def source_folder(self) -> Path:
        """Returns a folder with config and tokenizer of the source, if they are there; errors as in `described`."""
        return self.described(str(self.config.model.source)).folder

    @property
    def tokenizer_name(self) -> Path:
        """Where the run file says that the tokenizer of the data is."""
        return self.config.model.source

    def tokenizer_folder(self) -> Path:
        """Returns the folder or file of the tokenizer of the data; errors as in `described`."""
        return self.described(str(self.tokenizer_name)).folder

    def source_settings(self) -> dict[str, Any]:
        """Returns what config.json of the source says.

        Raises:
            LongformerError: there is no model, its config.json is damaged, or it is of another family.
        """
        source, folder = self.config.model.source, self.source_folder()
        if not (folder / CONFIG_FILE).is_file():
            raise LongformerError(
                f"model.source {source} holds no model (working directory: {Path.cwd()}); name the folder of one with "
                f"model.source=path/to/model{hub_hint(source)}"
            )
        settings = read_config(folder)
        if settings.get("model_type") not in self.families:
            raise LongformerError(
                f"model.source {source} is a model of the family {settings.get('model_type')}; this task takes "
                f"{', '.join(self.families)}"
            )
        return settings

    def long_shape(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `max_length` and `window`, as `longformer.interop.convert.convert` takes them, of the model that the
        run starts from where config.json of the source says this. A long source stays as it is where the run file asks
        for nothing else, and is never made shorter."""
        section, known = self.config.model, source_length(settings)
        if settings["model_type"] in self.trained:
            return {"max_length": max(section.max_length or 0, known), "window": section.window}
        length, window = section.short_defaults
        return {"max_length": section.max_length or max(length, known), "window": section.window or window}

    def check(self) -> list[str]:
        settings, init = self.source_settings(), self.config.init
        if init is None:
            self.check_conversion(settings)
            self._check_frozen_layers(settings)
        else:
            self.check_start(self.described(init).folder)
        return super().check()

    def _check_frozen_layers(self, settings: Mapping[str, Any]) -> None:
        counted = ("encoder_layers", "decoder_layers") if "encoder_layers" in settings else ("num_hidden_layers",)
        # What is not said is as the family has it, and known once the model is built.
        layers = sum(settings.get(name) or math.inf for name in counted)
        if self.config.training.freeze_layers > layers:
            raise LongformerError(
                f"training.freeze_layers is {self.config.training.freeze_layers}, but model.source "
                f"{self.config.model.source} has {layers} layers"
            )

    def check_conversion(self, settings: Mapping[str, Any]) -> None:
        """Checks that the model that the run file asks for can be made of the source, as its config.json tells.

        Raises:
            LongformerError: it cannot.
        """
        source, most = self.config.model.source, self.long_shape(settings)["max_length"]
        if not is_registered(source):
            weight_names(self.source_folder())  # refuses missing and damaged ones
        try:
            if settings["model_type"] in ENCODERS:
                check_convertible(settings)
            check_length(source_length(settings), most)
        except (ValueError, LongformerError) as error:
            raise LongformerError(f"model.source {source}: {error}") from error
        for index, phase in enumerate(self.config.phases):
            if phase.sequence_length > most:
                raise LongformerError(
                    f"phases[{index}].sequence_length is {phase.sequence_length:,}, but {self.config.reader} of "
                    f"model.source {source} reads {most:,} tokens; shorten the phase, or have it made longer with "
                    "model.max_length"
                )

    def check_start(self, model: Path) -> None:
        """Checks that the run can start from a model of the user's instead, as `init` asks.

        Raises:
            LongformerError: it is a model of another kind, shape or vocabulary.
        """
        settings, asked = read_config(model), self.config.init
        family = settings.get("model_type")
        if family not in self.trained:
            raise LongformerError(
                f"init: {asked} is a model of the family {family}; this run trains {' or '.join(self.trained)}"
            )
        length = max(phase.sequence_length for phase in self.config.phases)
        positions = source_length(settings)
        if positions < length:
            raise LongformerError(
                f"init: {asked} reads {positions:,} tokens, but a phase has {length:,}; shorten the phase, or make the "
                "model longer with `longformer convert`"
            )
        corpus = self.corpora()[0]
        if has_tokenizer(model) and corpus.tokenizer is not None:
            content = tokenizer_content(corpus.tokenizer(), corpus.special_tokens)
            of_data = open_content(with_tokens(content, self.added_tokens))
            if read_tokenizer(model).get_vocab() != of_data.get_vocab():
                raise LongformerError(
                    f"init: {asked} has another vocabulary than {self.tokenizer_name}, whose tokens the data holds; "
                    "give the run a tokenizer of the same vocabulary"
                )

    def check_tokenizer(self, tokenizer: TextTokenizer) -> None:
        size, known = tokenizer.vocabulary_size, self.source_settings().get("vocab_size")
        if known is not None and size > known + len(self.added_tokens):
            raise LongformerError(
                f"the tokenizer {self.tokenizer_name} has {size:,} tokens, but the model knows only {known:,}; give "
                "the model's own tokenizer"
            )


def open_tokenizer(
    path: Path,
    special_tokens: Sequence[str] | None = None,
    *,
    is_words: bool = False,
    added_tokens: Sequence[str] = (),
) -> TextTokenizer:
    """Returns the tokenizer of a folder or a tokenizer.json, the same for training and in use.

    Arguments and errors as in `longformer.interop.tokenizer.tokenizer_content`; the others as in `RunCorpus`.
    """
    content = with_tokens(tokenizer_content(path, special_tokens), added_tokens)
    return TextTokenizer(for_words(content) if is_words else content)


def _joined(fingerprints: list[str]) -> str:
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest()
