"""The models: Longformer and LED with their heads under Hugging Face's names, and the character language model.

Names are imported on first use, so that what needs no torch (configurations) stays free of it.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "CharacterLM": "char_lm.model",
    "LEDConfig": "led.config",
    "LEDForConditionalGeneration": "led.model",
    "LEDForQuestionAnswering": "led.model",
    "LEDModel": "led.model",
    "LongformerConfig": "longformer.config",
    "LongformerModel": "longformer.model",
    "LongformerForCandidateSelection": "longformer.several_texts",
    "LongformerForCoreference": "coreference.model",
    "LongformerForMaskedLM": "longformer.heads",
    "LongformerForMultiHopAnswers": "longformer.heads",
    "LongformerForMultipleChoice": "longformer.several_texts",
    "LongformerForQuestionAnswering": "longformer.heads",
    "LongformerForSequenceClassification": "longformer.heads",
    "LongformerForTokenClassification": "longformer.heads",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
