"""What the report of a finished character run adds: bits per character by phase beside xz, costs, continued texts.

Everything comes from the run directory and the prepared data; writing it again gives the same report.
"""

import lzma
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from matplotlib.patheffects import withStroke

from launcher.reporting.figures import BLUE, GREY, INK, ORANGE, attention_section, dress, png, smoothed
from launcher.reporting.html import Example, Figure, Section
from launcher.reporting.text import short
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.characters.data import CharacterData
from longformer.costs.training import TrainingCost
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.inference.attention_maps import character_attention
from longformer.inference.characters import CharacterPredictor
from longformer.models.char_lm.config import CharacterModelConfig
from longformer.models.char_lm.model import CharacterLM
from longformer.models.common.weightless import without_weights
from longformer.training.objectives import Lengths

_SHADES = ("#f3f6f9", "#e6edf4")
_MIN_LABELLED = 0.05
"""Share of the run below which the band of a phase has no room for its name."""
_EXAMPLES = 5
_CONTEXT, _CONTINUATION = 200, 80
"""Characters that the model reads, and that it writes."""
_SHOWN = 256
"""Characters of the text that attention is shown on."""


def report_of(config: CharacterRun, data: CharacterData, run: Run, memory: Sequence[int]) -> TaskReport:
    """Returns what the report adds.

    Args:
        config, data, run: the run.
        memory: bytes per rank of each phase, by formula.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    numbers = numbers_of(config, data, run, memory)
    predictor = CharacterPredictor.load(run.newest_result() / "model")
    text = torch.from_numpy(data.text("test", _SHOWN)).long()
    examples = _examples(predictor, data)
    figures = tuple(Figure(picture, name.replace("_", " ")) for name, picture in numbers.figures.items())
    sections = (Section("Phases", "", figures), _example_section(examples), _attention(predictor, text))
    return replace(numbers, sections=sections, tables={"examples": examples})


def numbers_of(config: CharacterRun, data: CharacterData, run: Run, memory: Sequence[int]) -> TaskReport:
    """Returns the part of it that no model is needed for: windows, both figures, and the comparison with xz."""
    evaluations = run.evaluations()
    records = MetricsFollower(run.paths.metrics_file).new_records()
    test = evaluations[-1]["test"]
    xz = _xz_bits_per_character(data)
    note = (
        f"The test score is over {test['scored']:,} characters (sequences of {test['sequence_length']:,}, step "
        f"{test['stride']:,}; {test['scored_without_full_context']:,} at the beginning with less context). For "
        f"orientation, xz -9e needs {xz:.3f} bits per character for the same text."
    )
    return TaskReport(
        notes=(note,),
        columns={"windows": [f"{min(phase.windows):,}-{max(phase.windows):,}" for phase in config.phases]},
        numbers={"xz_bits_per_character": xz},
        figures={
            "bits_per_character": _bits_figure(config, evaluations, records, xz),
            "cost": _cost_figure(config, data.vocabulary_size, evaluations, run.paths.identity().ranks, memory),
        },
    )


def _bits_figure(
    config: CharacterRun, evaluations: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]], xz: float
) -> bytes:
    """Returns training and held-out bits per character over the characters seen, with the phases as bands."""
    figure = Canvas(figsize=(9, 4.8), layout="constrained")
    axes = figure.add_subplot()
    tokens = np.array([record["tokens"] for record in records], dtype=float)
    bits = np.array([record["loss"] for record in records]) / np.log(2)
    axes.plot(tokens, bits, color=BLUE, alpha=0.25, linewidth=0.8)
    axes.plot(tokens, smoothed(bits), color=BLUE, linewidth=1.8, label="training, smoothed")

    ends = np.cumsum([evaluation["tokens"] for evaluation in evaluations])
    held_out = [evaluation["validation"]["bits_per_character"] for evaluation in evaluations]
    low = min(float(bits.min()), *held_out, xz)
    high = max(float(np.quantile(bits, 0.98)), *held_out, xz)
    room = high - low
    axes.set_ylim(low - 0.08 * room, high + 0.2 * room)
    for index, (phase, evaluation, end) in enumerate(zip(config.phases, evaluations, ends, strict=True)):
        start = end - evaluation["tokens"]
        axes.axvspan(start, end, color=_SHADES[index % 2], zorder=0)
        if evaluation["tokens"] < _MIN_LABELLED * ends[-1]:
            continue
        axes.text(
            (start + end) / 2,
            0.985,
            f"{phase.name}\n{phase.sequence_length:,}",
            ha="center",
            va="top",
            color=INK,
            fontsize=9,
            transform=axes.get_xaxis_transform(),
        )
    axes.plot(ends, held_out, "o", color=ORANGE, markersize=7, label="held-out text, end of phase", zorder=5)
    for end, value in zip(ends, held_out, strict=True):
        axes.annotate(
            f"{value:.2f}",
            (end, value),
            xytext=(-6, 8),
            textcoords="offset points",
            ha="right",
            color=ORANGE,
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.axhline(xz, color=GREY, linestyle="--", linewidth=1.2, label=f"xz -9e on the test text ({xz:.2f})")
    axes.set_xlim(0, ends[-1] * 1.01)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    dress(axes, f"{config.name}: bits per character by phase", "characters trained on", "bits per character")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.86), frameon=False, fontsize=9)
    return png(figure)


def _cost_figure(
    config: CharacterRun,
    vocabulary_size: int,
    evaluations: Sequence[Mapping[str, Any]],
    ranks: int,
    estimates: Sequence[int],
) -> bytes:
    """Returns what a character costs at each sequence length: computed FLOPs, measured time, memory per rank."""
    figure = Canvas(figsize=(13, 4.2), layout="constrained")
    flops, time, memory = figure.subplots(1, 3)
    models = [config.character_model(index, vocabulary_size) for index in range(len(config.phases))]
    last = models[-1]
    lengths = np.array([phase.sequence_length for phase in config.phases])
    grid = [int(length) for length in np.geomspace(lengths.min(), 8 * lengths.max(), 25)]

    full = [replace(last, windows=(length,) * last.layers, dilated_heads=0) for length in grid]
    flops.plot(
        grid,
        list(map(_flops_of_character(last), grid)),
        color=BLUE,
        label=f"windows {min(last.windows):,}-{max(last.windows):,}",
    )
    flops.plot(
        grid,
        [_flops_of_character(each)(length) for each, length in zip(full, grid, strict=True)],
        color=GREY,
        linestyle="--",
        label="full attention",
    )
    phases = [_flops_of_character(each)(int(length)) for each, length in zip(models, lengths, strict=True)]
    flops.plot(lengths, phases, "o", color=ORANGE, label="phases of this run")
    dress(flops, "Compute, from the formula", "sequence length", "million FLOPs per character")

    microseconds = [1e6 * evaluation["seconds"] / evaluation["tokens"] for evaluation in evaluations]
    time.plot(lengths, microseconds, "o-", color=ORANGE, label=f"phases of this run, {ranks} ranks")
    dress(time, "Time, measured", "sequence length", "microseconds per character")

    memory.plot(
        lengths, np.array(estimates) / 2**20, "o--", color=GREY, label="model and activations, from the formula"
    )
    memory.plot(
        lengths,
        [evaluation["peak_memory_bytes"] / 2**20 for evaluation in evaluations],
        "o-",
        color=ORANGE,
        label="peak of the process, measured",
    )
    dress(memory, "Memory per rank", "sequence length", "MiB")
    for axes in (flops, time, memory):
        axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.legend(frameon=False, fontsize=9)
    return png(figure)


def _examples(predictor: CharacterPredictor, data: CharacterData) -> list[dict[str, Any]]:
    """Returns how the model goes on with unseen text, beside what really follows, at places all over the test text."""
    stream = data.split("test")
    length = _CONTEXT + _CONTINUATION
    found = []
    for number in range(min(_EXAMPLES, len(stream) // length)):
        start = number * (len(stream) - length) // _EXAMPLES
        tokens = stream.read(start, start + length).tolist()
        context = predictor.decode_bytes(tokens[:_CONTEXT])
        written = b"".join(predictor.continuation(context, characters=_CONTINUATION, temperature=0))
        score = evaluate_bits_per_character(
            predictor.model, torch.tensor(tokens), sequence_length=length, stride=length, batch_size=1
        )
        found.append(
            {
                "text": context.decode(errors="replace"),
                "goes on with": predictor.decode(tokens[_CONTEXT:]),
                "the model writes": written.decode(errors="replace"),
                "bits per character of the text": score.bits,
            }
        )
    return found


def _example_section(examples: Sequence[Mapping[str, Any]]) -> Section:
    shown = tuple(
        Example(tuple((name, value if isinstance(value, str) else f"{value:.3f}") for name, value in example.items()))
        for example in examples
    )
    return Section("Examples", "Places spread over the test text.", shown)


def _attention(predictor: CharacterPredictor, text: torch.Tensor) -> Section:
    config = predictor.model.config
    about = (
        f"The first {len(text)} characters of the test text. Every position sees itself and at most "
        f"{min(config.windows)} (narrowest layer) to {max(config.windows)} (widest) earlier ones; dilations "
        f"{', '.join(map(str, sorted(set(config.dilations))))}."
    )
    pieces = [predictor.decode([token]) for token in text.tolist()]
    return attention_section(character_attention(predictor.model, text), pieces, about=about)


def _xz_bits_per_character(data: CharacterData) -> float:
    """Returns what `xz -9e` makes of the test split, in bits per character (our characters are bytes)."""
    symbols = np.frombuffer(data.symbols or b"", dtype=np.uint8)
    text = symbols[data.text("test")].tobytes()
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def _flops_of_character(config: CharacterModelConfig) -> Callable[[int], float]:
    """Returns what gives the millions of operations to train on a character of sequences of a length."""
    with without_weights():
        cost = TrainingCost(CharacterLM(config), (), predictions=lambda text: text.read, global_tokens=0)
    return lambda length: cost.flops(Lengths(length)) / length / 1e6
