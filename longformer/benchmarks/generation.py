"""Writing with an LED, ours beside Hugging Face's: the same random weights, document and settings, by turns.

Reading lasts until the decoder begins; the tokens written must be the same.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from longformer.benchmarks.published_shapes import LED_BASE
from longformer.errors import LongformerError, WorkFailed

OURS, HUGGING_FACE = "ours", "Hugging Face"


@dataclass(frozen=True)
class WritingMeasurement:
    """What a contender took at its fastest, in seconds: the whole, and its parts."""

    contender: str
    seconds: float
    reading_seconds: float
    writing_seconds: float


def compare_writing(
    *,
    positions: int,
    beams: int,
    new_tokens: int,
    repeats: int,
    report: Callable[[str], None],
    shape: Mapping[str, Any] = LED_BASE,
) -> list[WritingMeasurement]:
    """Lets both write about one document, ours first; `report` is told what is being done.

    Args:
        positions: tokens of the document, the first of them global.
        beams: texts followed at the same time.
        new_tokens: how many are written, no fewer and no more.
        repeats: runs of each; the fastest counts.
        shape: of the models, under the names of the config.

    Raises:
        LongformerError: transformers is not installed.
        WorkFailed: the two wrote different tokens.
    """
    if find_spec("transformers") is None:
        raise LongformerError("the comparison needs Hugging Face's models: pip install transformers")
    torch.manual_seed(0)
    report("making the models")
    models = make_models(shape)
    input_ids = torch.randint(3, shape["vocab_size"], (1, positions))
    document = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    document["global_attention_mask"] = torch.zeros_like(input_ids)
    document["global_attention_mask"][:, 0] = 1
    for model in models.values():
        # Touches all weights, so that no run waits for the disk.
        model.generate(input_ids[:, :64], num_beams=beams, max_new_tokens=2)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for run in range(repeats):
        written = {}
        for name, model in models.items():
            report(f"{name}: run {run + 1} of {repeats}")
            reading, writing, written[name] = timed(model, document, beams=beams, new_tokens=new_tokens)
            found[name].append((reading, writing))
        if not torch.equal(written[OURS], written[HUGGING_FACE]):
            raise WorkFailed(f"with {positions} tokens and {beams} beams the two wrote different texts")
    measurements = []
    for name, runs in found.items():
        reading, writing = (min(times) for times in zip(*runs, strict=True))
        measurements.append(WritingMeasurement(name, reading + writing, reading, writing))
    return measurements


def make_models(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an LED with random weights twice, ours and Hugging Face's."""
    import transformers

    from longformer import models

    theirs = transformers.LEDForConditionalGeneration(transformers.LEDConfig(**shape)).eval()
    with torch.no_grad():
        # Fresh weights would make all tokens about equally probable, and rounding would choose between beams.
        theirs.led.decoder.layers[-1].final_layer_norm.weight.mul_(4)
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return {OURS: models.LEDForConditionalGeneration.from_pretrained(Path(folder)), HUGGING_FACE: theirs}


def timed(model: Any, document: dict[str, Tensor], *, beams: int, new_tokens: int) -> tuple[float, float, Tensor]:
    """Returns the seconds that a model reads and writes, and what it writes."""
    decoder_starts: list[float] = []
    hook = model.get_decoder().register_forward_pre_hook(lambda *_: decoder_starts.append(time.perf_counter()))
    start = time.perf_counter()
    written = model.generate(
        **document, num_beams=beams, max_new_tokens=new_tokens, min_new_tokens=new_tokens, no_repeat_ngram_size=3
    )
    end = time.perf_counter()
    hook.remove()
    return decoder_starts[0] - start, end - decoder_starts[0], written
