"""What all Longformer models share: fresh weights, Hugging Face folders in and out, activation checkpointing."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from longformer.errors import LongformerError
from longformer.files import sync_directory, sync_file, write_json
from longformer.interop import huggingface
from longformer.interop.checkpoint_files import read_json, read_tensors
from longformer.models.longformer_config import LongformerConfig

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Parts that not every model has: a checkpoint may lack one altogether, or bring one that the model does not want.
HEADS = ("lm_head", "classifier", "qa_outputs", "pooler")


class PretrainedModel(nn.Module):
    """Base of the Longformer models."""

    is_bare = False
    """Whether the model is the encoder itself, whose tensors carry no prefix on disk."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def encoder_stack(self) -> Any:
        """The stack of layers, wherever it stands."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, directory: Path | str, *, dtype: torch.dtype | None = None, **changes: Any) -> Self:
        """Return the model of a Hugging Face folder, ready to read (not in training mode).

        A head that the folder lacks altogether starts with fresh weights, one that this model does not have is left
        out; both are logged.

        Args:
            directory: holds config.json and the weights, in a layout of spec 1.6.
            dtype: of the weights; None = as they are stored.
            changes: fields of the config to change, such as num_labels.

        Raises:
            LongformerError: a file is missing or damaged, the config belongs to another family, or tensors are
                missing, unknown or misshapen (all are listed).
            ValueError: a change is not a field of the config, or its value is refused.
        """
        directory = Path(directory)
        config = huggingface.config_from_json(read_json(directory / CONFIG_FILE))
        with torch.device("meta"):
            model = cls(config.replaced(**changes))
        saved = huggingface.current_names(read_tensors(directory))
        if config.tie_word_embeddings:
            saved.pop("lm_head.decoder.weight", None)
        fitting, fresh = fit(saved, model.named_tensors(), directory)
        model.load_state_dict(
            {model._own_name(name): tensor for name, tensor in huggingface.pack_projections(fitting).items()},
            strict=False,
            assign=True,
        )
        stored = next(iter(fitting.values())).dtype
        model._make_fresh({model._own_name(name) for name in fresh}, stored)
        model.tie_weights()
        return model.to(dtype).eval()

    def save_pretrained(self, directory: Path | str) -> None:
        """Write a folder that this class and Hugging Face read; config.json comes last and says that it is whole.

        Raises:
            LongformerError: the folder holds a model already.
            OSError: it cannot be written.
        """
        from safetensors.torch import save_file

        directory = Path(directory)
        if (directory / CONFIG_FILE).exists():
            raise LongformerError(f"{directory} holds a model already; remove it or choose another directory")
        directory.mkdir(parents=True, exist_ok=True)
        tensors = huggingface.unpack_projections({name: tensor.detach() for name, tensor in self.named_parameters()})
        staging = directory / f".{WEIGHTS_FILE}.staging"
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, staging, {"format": "pt"})
        sync_file(staging)
        staging.replace(directory / WEIGHTS_FILE)
        dtype = next(self.parameters()).dtype
        write_json(
            directory / CONFIG_FILE,
            huggingface.config_to_json(self.config, architecture=type(self).__name__, dtype=dtype),
        )
        sync_directory(directory)

    def gradient_checkpointing_enable(self, *, keep_attention: bool = False) -> None:
        """Keep only each layer's input for backward and compute the rest again.

        Args:
            keep_attention: keep also what attention gave, which is the dearest part to compute again and takes as
                much memory as one more hidden state per layer.
        """
        self.encoder_stack.kept = "attention" if keep_attention else "nothing"

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything again."""
        self.encoder_stack.kept = "everything"

    def named_tensors(self) -> dict[str, Tensor]:
        """Return the parameters under Hugging Face's names, those of the encoder with its prefix."""
        prefix = huggingface.BASE if self.is_bare else ""
        named = huggingface.unpack_projections(dict(self.named_parameters()))
        return {prefix + name: tensor for name, tensor in named.items()}

    def tie_weights(self) -> None:
        """Make parameters one that are meant to be one."""

    def initialise(self) -> None:
        """Draw fresh weights: matrices from a normal distribution, biases and the rows of padding 0."""
        self._initialise(dict(self.named_parameters()))

    def _initialise(self, parameters: Mapping[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
                nn.init.ones_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=self.config.initializer_range)
                if name.endswith(("word_embeddings.weight", "position_embeddings.weight")):
                    with torch.no_grad():
                        parameter[self.config.pad_token_id] = 0

    def _make_fresh(self, names: Iterable[str], dtype: torch.dtype) -> None:
        fresh = {}
        for name in sorted(names):
            module, _, attribute = name.rpartition(".")
            fresh[name] = nn.Parameter(torch.empty(self.get_parameter(name).shape, dtype=dtype))
            setattr(self.get_submodule(module), attribute, fresh[name])
        self._initialise(fresh)

    def _own_name(self, name: str) -> str:
        return name.removeprefix(huggingface.BASE) if self.is_bare else name


def fit(
    saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the saved tensors that a model takes, and the names of those that start fresh.

    Raises:
        LongformerError: lists every missing, unknown and misshapen tensor.
    """
    fresh_heads = {head for head in HEADS if head in parts(expected) and not (names_of(head, expected) & saved.keys())}
    unwanted = {head for head in HEADS if head in parts(saved) and head not in parts(expected) - fresh_heads}
    wanted = {name: tensor for name, tensor in saved.items() if part_of(name) not in unwanted}
    fresh = [name for name in expected if part_of(name) in fresh_heads]
    problems = [f"{name} is missing" for name in expected.keys() - wanted.keys() - set(fresh)]
    problems += [f"{name} is unknown" for name in wanted.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(wanted[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & wanted.keys()
        if wanted[name].shape != expected[name].shape
    ]
    if problems:
        raise LongformerError(f"the weights in {source} do not fit the model: {'; '.join(sorted(problems))}")
    if fresh_heads:
        log.warning("%s has no %s: it starts with fresh weights", source, ", ".join(sorted(fresh_heads)))
    if unwanted - fresh_heads:
        log.warning("%s of %s is not used by this model", ", ".join(sorted(unwanted - fresh_heads)), source)
    return wanted, fresh


def part_of(name: str) -> str:
    """Return the head that a tensor belongs to, or the name of the encoder."""
    return name.removeprefix(huggingface.BASE).partition(".")[0] if "pooler." in name else name.partition(".")[0]


def parts(names: Iterable[str]) -> set[str]:
    """Return the parts that some tensors belong to."""
    return {part_of(name) for name in names}


def names_of(part: str, names: Iterable[str]) -> set[str]:
    """Return the names of a part's tensors."""
    return {name for name in names if part_of(name) == part}
