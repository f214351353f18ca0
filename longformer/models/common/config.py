"""What the configs of Longformer and LED share: windows per layer, special tokens, and keys that are only handed on.

Windows are totals without the token itself, as in the paper and in Hugging Face; `band` turns them into sides.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from longformer.attention.band import Band

ACTIVATION_NAMES = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")


@dataclass(kw_only=True)
class WindowedConfig:
    """Base of the configs; fields carry Hugging Face's names (semantics.md 1.6).

    Fields are checked when the config is made. Transformers' Trainer and pipelines, and peft, set and read further
    attributes, such as `use_cache`: they are kept in `other`.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names the field.
    """

    family: ClassVar[str]
    """Hugging Face's model_type."""
    extended_family: ClassVar[str | None] = None
    """model_type of what Hugging Face's models of this family cannot compute."""
    extensions: ClassVar[tuple[str, ...]] = ()
    """Truth values that Hugging Face's config does not have; a model with one of them is of the extended family."""

    attention_window: int | tuple[int, ...] = 512
    """How many neighbours a token sees, both sides together, even; one number or one per encoder layer."""
    vocab_size: int
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int = 2
    tie_word_embeddings: bool = True
    """Whether the head over the vocabulary uses the word embeddings as its output matrix."""
    num_labels: int = 2
    """Number of classes of a classification head."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """Keys of config.json that this class does not know; they are written back."""
    name_or_path: ClassVar[str] = ""
    """Where the model was read from; set on a config, and not written."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name == "name_or_path" or hasattr(type(self), name) or name in self._names():
            super().__setattr__(name, value)
        else:
            self.other = {**self.other, name: value}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Returns one of the `other` keys, which are not attributes of their own."""
            other = self.__dict__.get("other", {})
            if name not in other:
                raise AttributeError(f"{type(self).__name__} has no attribute {name}")
            return other[name]

    @property
    def id2label(self) -> dict[int, str]:
        """Names of the classes by number."""
        names = {int(number): str(name) for number, name in (self.other.get("id2label") or {}).items()}
        return names if len(names) == self.num_labels else {index: f"LABEL_{index}" for index in range(self.num_labels)}

    @id2label.setter
    def id2label(self, names: Mapping[int, str]) -> None:
        self.num_labels = len(names)
        self.other = {**self.other, "id2label": {str(number): name for number, name in names.items()}}

    @property
    def label2id(self) -> dict[str, int]:
        """Numbers of the classes by name."""
        return {name: number for number, name in self.id2label.items()}

    @label2id.setter
    def label2id(self, numbers: Mapping[str, int]) -> None:
        self.other = {**self.other, "label2id": dict(numbers)}

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of config.json, but for what it says about the model itself: its class and dtype."""
        values = {name: getattr(self, name) for name in self._names() - {"other", "num_labels"}}
        if self.model_type == self.family:
            values = {name: value for name, value in values.items() if name not in self.extensions}
        values["attention_window"] = list(values["attention_window"])
        # Only what allenai's code wrote about its own kernels; the window is a total now.
        unwanted = ("attention_mode", "attention_dilation", "autoregressive")
        other = {name: value for name, value in self.other.items() if name not in unwanted}
        if len(other.get("id2label") or {}) != self.num_labels:
            other["id2label"] = {str(number): name for number, name in self.id2label.items()}
            other["label2id"] = self.label2id
        return dict(sorted((values | other | {"model_type": self.model_type}).items()))

    def to_json_string(self, **_: Any) -> str:
        """Returns `to_dict` as JSON; transformers' arguments are taken and make no difference."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @property
    def initial_deviation(self) -> float:
        """Standard deviation of fresh weights."""
        raise NotImplementedError

    @property
    def model_type(self) -> str:
        """What config.json calls the model."""
        if self.extended_family is not None and any(getattr(self, name) for name in self.extensions):
            return self.extended_family
        return self.family

    def band(self, layer: int) -> Band:
        """Returns what a token of an encoder layer sees."""
        assert isinstance(self.attention_window, tuple)
        side = self.attention_window[layer] // 2
        return Band(side, side)

    def replaced(self, **changes: Any) -> Self:
        """Returns the config with some fields changed.

        Raises:
            ValueError: a field does not exist, or its value is refused.
        """
        unknown = changes.keys() - self._names()
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]} is not a field of {type(self).__name__}")
        return dataclasses.replace(self, **changes)

    def set_windows(self, layers: int) -> None:
        """Writes `attention_window` as one number per layer; for `__post_init__`."""
        windows = self.attention_window
        windows = (windows,) * layers if isinstance(windows, int) else tuple(windows)
        self.attention_window = windows
        for window in windows:
            if not isinstance(window, int) or window <= 0 or window % 2:
                raise ValueError(f"attention_window must be even and positive, got {window!r}")
        if len(windows) != layers:
            raise ValueError(f"attention_window must be one number or one per layer ({layers}), got {len(windows)}")

    def check_activation(self, name: str) -> None:
        """Raises ValueError unless the field of this name holds a known activation."""
        if getattr(self, name) not in ACTIVATION_NAMES:
            raise ValueError(f"{name} must be one of {', '.join(ACTIVATION_NAMES)}, got {getattr(self, name)!r}")

    @classmethod
    def _names(cls) -> set[str]:
        return {each.name for each in dataclasses.fields(cls)}

    def check_multiple(self, width: str, heads: str) -> None:
        """Raises ValueError unless the field `width` is a multiple of the field `heads`."""
        if getattr(self, width) % getattr(self, heads):
            raise ValueError(
                f"{width} must be a multiple of {heads}, got {getattr(self, width)} and {getattr(self, heads)}"
            )
