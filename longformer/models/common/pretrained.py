"""What all models share: fresh weights, Hugging Face folders in and out, activation checkpointing."""

from collections.abc import Collection, Container
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from longformer.interop import huggingface
from longformer.interop.checkpoint_files import read_tensors, unwrapped, write_folder
from longformer.interop.families import Family
from longformer.interop.fitting import fit, without_copies
from longformer.interop.model_folder import read_config
from longformer.models.common.config import WindowedConfig
from longformer.models.common.freezing import whole_parameters
from longformer.models.common.inputs import BatchFacts
from longformer.models.common.layer_stack import LayerStack, SavedActivations
from longformer.models.common.weightless import without_weights


class PretrainedModel(nn.Module):
    """Base of the Longformer and LED models."""

    family: ClassVar[Family]
    is_bare = False
    """Whether the model has no head; its tensors then carry no prefix on disk."""
    config: Any
    accepts_loss_kwargs = False
    """What transformers' Trainer asks: the loss is a mean, and takes no number of items to divide by."""

    def __init__(self, config: WindowedConfig) -> None:
        super().__init__()
        self.config = config

    def __call__(self, *inputs: Any, return_dict: bool | None = None, **named: Any) -> Any:
        """Returns what `forward` gives; with `return_dict=False`, as in Hugging Face, the plain tuple of its values."""
        output = super().__call__(*inputs, **named)
        return output.to_tuple() if return_dict is False else output

    @classmethod
    def from_pretrained(cls, directory: Path | str, *, dtype: torch.dtype | None = None, **changes: Any) -> Self:
        """Returns the model of a Hugging Face folder, ready to read (not in training mode).

        A head that the folder lacks altogether starts with fresh weights, one that this model does not have is left
        out; both are logged.

        Args:
            directory: holds config.json and the weights, in a layout of semantics.md 1.5.
            dtype: of the weights; None = as they are stored, of several precisions the one that holds all.
            changes: fields of the config to change, such as num_labels.

        Raises:
            LongformerError: a file is missing or damaged, the config belongs to another family, or tensors are
                missing, unknown or misshapen (all are listed).
            ValueError: a change is not a field of the config, or its value is refused.
        """
        directory = Path(directory)
        config = huggingface.config_from_json(read_config(directory), cls.family.config)
        with without_weights():
            model = cls(config.replaced(**changes))
        saved = cls.family.current_names(read_tensors(directory))
        if model.config.tie_word_embeddings:
            saved = without_copies(saved, cls.family.tied)
        fitting, fresh = fit(saved, model.named_tensors(), directory)
        model.load_state_dict(
            {model._own_name(name): tensor for name, tensor in huggingface.pack_projections(fitting).items()},
            strict=False,
            assign=True,
        )
        # A model computes in one precision; where several are stored, in one that holds them all.
        stored = reduce(torch.promote_types, {tensor.dtype for tensor in fitting.values()})
        model._make_fresh({model._own_name(name) for name in fresh}, stored)
        model.tie_weights()
        model.config.name_or_path = str(directory)
        return model.to(dtype or stored).eval()

    def save_pretrained(self, directory: Path | str) -> None:
        """Writes a folder that this class and Hugging Face read; config.json comes last and says that it is whole.

        Raises:
            LongformerError: the folder holds a model already.
            OSError: it cannot be written.
        """
        dtype = next(self.parameters()).dtype
        config = huggingface.config_to_json(self.config, architecture=type(self).__name__, dtype=dtype)
        tensors = huggingface.unpack_projections(self._own_tensors())
        write_folder(Path(directory), config, {name: tensor.detach() for name, tensor in tensors.items()})

    def facts(self, *inputs: Any, **named: Any) -> BatchFacts:
        """Returns what the model must know on the host about arguments of `forward`, labels among them.

        Made of a batch on the CPU and handed to `forward` as `facts` with that batch on a device, they spare it to wait
        for the device.

        Raises:
            ValueError: a shape does not fit.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @property
    def name_or_path(self) -> str:
        """Where the model was read from; empty for a new one."""
        return str(self.config.name_or_path)

    def gradient_checkpointing_enable(self, *, keep_attention: bool = False, **_: Any) -> None:
        """Keeps only each layer's input for backward and computes the rest again.

        What else transformers' Trainer hands in makes no difference.

        Args:
            keep_attention: keep also what attention gave, which is the dearest part to compute again and takes as
                much memory as one more hidden state per layer.
        """
        self._set_saved_activations("attention" if keep_attention else "inputs")

    def gradient_checkpointing_disable(self) -> None:
        """Keeps everything again."""
        self._set_saved_activations("all")

    def named_tensors(self) -> dict[str, Tensor]:
        """Returns all tensors under Hugging Face's names, those of the bare model with its prefix."""
        prefix = self.family.base if self.is_bare else ""
        return {prefix + name: tensor for name, tensor in huggingface.unpack_projections(self._own_tensors()).items()}

    def tie_weights(self) -> None:
        """Makes parameters one that are meant to be one."""

    def initialise(self) -> None:
        """Draws fresh weights: matrices from a normal distribution, biases and the rows of padding 0."""
        self._initialise(self._own_tensors().keys())

    @torch.no_grad()
    def _initialise(self, names: Container[str]) -> None:
        for path, module in self.named_modules():
            for name, tensor in (
                *module.named_parameters(path, recurse=False),
                *module.named_buffers(path, recurse=False),
            ):
                if name not in names:
                    continue
                if name.endswith("bias"):
                    tensor.zero_()
                elif isinstance(module, nn.LayerNorm):
                    tensor.fill_(1)
                else:
                    tensor.normal_(std=self.config.initial_deviation)
                    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                        tensor[module.padding_idx] = 0

    def _make_fresh(self, names: Collection[str], dtype: torch.dtype) -> None:
        for name in names:
            path, _, attribute = name.rpartition(".")
            module = self.get_submodule(path)
            missing = getattr(module, attribute)
            fresh = torch.empty(missing.shape, dtype=dtype)
            setattr(module, attribute, nn.Parameter(fresh) if isinstance(missing, nn.Parameter) else fresh)
        self._initialise(names)

    def _set_saved_activations(self, saved: SavedActivations) -> None:
        for module in self.modules():
            if isinstance(module, LayerStack):
                module.saved_activations = saved

    def _own_tensors(self) -> dict[str, Tensor]:
        """Returns what makes up the model under our names without wrappers, shared tensors once."""
        return unwrapped(whole_parameters(self) | dict(self.named_buffers(recurse=False)))

    def _own_name(self, name: str) -> str:
        return name.removeprefix(self.family.base) if self.is_bare else name
