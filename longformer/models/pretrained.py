"""What all Longformer models share: fresh weights, Hugging Face folders in and out, activation checkpointing."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from longformer.interop import huggingface
from longformer.interop.checkpoint_files import CONFIG_FILE, read_json, read_tensors, write_folder
from longformer.interop.fitting import fit
from longformer.models.longformer_config import LongformerConfig


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
        dtype = next(self.parameters()).dtype
        config = huggingface.config_to_json(self.config, architecture=type(self).__name__, dtype=dtype)
        tensors = huggingface.unpack_projections({name: tensor.detach() for name, tensor in self.named_parameters()})
        write_folder(Path(directory), config, tensors)

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
