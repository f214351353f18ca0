"""What the tasks share whose model is made of a pretrained one: it comes from a folder and leaves as one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from launcher.tasks.base import Task
from launcher.tasks.data import PretrainedData
from launcher.tasks.sections import PretrainedRun
from launcher.tracking.registry.open_model import model_folder, open_model
from longformer.errors import LongformerError
from longformer.interop import convert_encoder
from longformer.interop.added_tokens import read_settings
from longformer.interop.convert import convert, copy_files, write_tokenizer
from longformer.interop.huggingface import config_from_json
from longformer.interop.model_folder import CONFIG_FILE, read_config
from longformer.interop.sources import source_length
from longformer.interop.tokenizer import FILES
from longformer.models.common.freezing import freeze_global_projections
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.common.weightless import without_weights

Config = TypeVar("Config", bound=PretrainedRun)
Data = TypeVar("Data", bound=PretrainedData[Any])


@dataclass(frozen=True)
class PretrainedTask(Task[Config, Data], Generic[Config, Data]):
    """A task on a Longformer or an LED that the run's start makes of `model.source`.

    A subclass names the class of its model.
    """

    model_class: ClassVar[type[PretrainedModel]]
    has_export: ClassVar[bool] = True
    global_tokens: ClassVar[int] = 1

    @property
    def published_settings(self) -> dict[str, Any] | None:
        """config.json of a published model that stands for the source in plans while that is not there."""
        return None

    @property
    def model_changes(self) -> dict[str, Any]:
        """Fields of the model's config that the task sets, such as num_labels."""
        return {}

    def build_model(self, index: int, origin: Path | None) -> Any:
        assert origin is not None, "the run has a start"
        model = self.model_class.from_pretrained(origin, dtype=torch.float32, **self.model_changes).train()
        if self.config.training.activation_checkpointing is True:
            model.gradient_checkpointing_enable()
        return self._without_unused(model)

    def blank_model(self, index: int, origin: Path | None) -> Any:
        with without_weights():
            return self._without_unused(self.model_class(self.model_config(origin)).train())

    def _without_unused(self, model: Any) -> Any:
        """Freezes what no token goes through, in place: weight decay would wear it away."""
        if not self.global_tokens:
            freeze_global_projections(model)
        return model

    def write_start(self, target: Path) -> str:
        source = self.data.described(str(self.config.model.source))
        shape = self.data.long_shape(self.data.source_settings())
        with open_model(source.origin, store=self.config.tracking.uri) as found:
            try:
                convert(
                    model_folder(found.folder),
                    target,
                    **shape,
                    tokenizer=self.data.tokenizer_folder(),
                    special_tokens=self.config.data.special_tokens,
                    added_tokens=self.data.added_tokens,
                    seed=self.config.seed,
                    **self.conversion,
                )
            except ValueError as error:
                raise LongformerError(f"model.source {self.config.model.source}: {error}") from error
        return source.origin

    @property
    def conversion(self) -> dict[str, Any]:
        """Further keywords of `longformer.interop.convert.convert`."""
        # A head over the vocabulary has no place for the added tokens.
        return {"without": ("lm_head",)} if self.data.added_tokens else {}

    def check_start(self, model: Path) -> None:
        self.data.check_start(model)

    def settle_start(self, start: Path) -> None:
        """Gives the model the tokenizer of the data: what it reads in use is then what it has learned from."""
        settings = read_settings(start)
        for name in FILES:
            (start / name).unlink(missing_ok=True)
        write_tokenizer(
            self.data.tokenizer_folder(),
            start,
            settings.get("tokenizer_class", "PreTrainedTokenizerFast"),
            settings.get("model_max_length", source_length(read_config(start))),
            self.config.data.special_tokens,
            self.data.added_tokens,
        )

    def export(self, model: Path, target: Path) -> None:
        # What a phase leaves is a folder of Hugging Face's layout already.
        shutil.copytree(model, target, dirs_exist_ok=True)

    def copy_companions(self, origin: Path | None, target: Path) -> None:
        assert origin is not None, "the run has a start"
        copy_files(origin, target)

    def model_config(self, origin: Path | None) -> Any:
        """Returns the config of the model in a folder; None: of the one that the source becomes.

        Raises:
            LongformerError: there is no such model, or it is not one that can be made long.
        """
        if origin is not None:
            config = config_from_json(read_config(origin), self.model_class.family.config)
        else:
            config = self.converted_config(self.source_settings())
        return config.replaced(**self.model_changes)

    def converted_config(self, settings: dict[str, Any]) -> Any:
        """Returns the config of the model that a source with this config.json becomes."""
        config = convert_encoder.long_config(settings, **self.data.long_shape(settings))
        if not self.data.added_tokens:
            return config
        tokens = self.data.corpora()[0].opened_tokenizer().vocabulary_size
        return config.replaced(vocab_size=max(config.vocab_size, tokens))

    def source_settings(self) -> dict[str, Any]:
        """Returns what config.json of the source says, or that of the published model which stands for it.

        Raises:
            LongformerError: there is no model, its config.json is damaged, or it is of another family.
        """
        stand_in = self.published_settings
        if stand_in is not None and not (self.data.source_folder() / CONFIG_FILE).is_file():
            return stand_in
        return self.data.source_settings()
