"""The plots of a report, as PNG bytes. They draw numbers that others have measured or computed."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from launcher.reporting.text import short
from launcher.tasks.character_cost import phase_memory
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.characters.summary import Summary
from longformer.costs.char_lm import training_flops_per_token

INK = "#1f2933"
BLUE = "#2563a8"
ORANGE = "#d9822b"
GREY = "#9aa5b1"
_SHADES = ("#f3f6f9", "#e6edf4")

NARROWEST_LABELLED = 0.05
"""Share of the run below which the band of a phase has no room for its name."""


def bits_per_character_plot(records: Sequence[dict[str, Any]], summary: Summary) -> bytes:
    """Return training and held-out bits per character over the characters seen, with the phases as bands."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.add_subplot()
    tokens = np.array([record["tokens"] for record in records], dtype=float)
    bits = np.array([record["loss"] for record in records]) / np.log(2)
    axes.plot(tokens, bits, color=BLUE, alpha=0.25, linewidth=0.8)
    axes.plot(tokens, smoothed(bits), color=BLUE, linewidth=1.8, label="training, smoothed")

    ends = np.cumsum([phase.tokens for phase in summary.phases])
    held_out = [phase.validation_bits_per_character for phase in summary.phases]
    test = summary.test
    low = min(float(bits.min()), *held_out, test.xz_bits_per_character)
    high = max(np.quantile(bits, 0.98), *held_out, test.xz_bits_per_character)
    room = high - low
    axes.set_ylim(low - 0.08 * room, high + 0.2 * room)
    for index, (phase, end) in enumerate(zip(summary.phases, ends, strict=True)):
        start = end - phase.tokens
        axes.axvspan(start, end, color=_SHADES[index % 2], zorder=0)
        if phase.tokens < NARROWEST_LABELLED * ends[-1]:
            continue
        label = f"{phase.name}\n{phase.sequence_length:,}"
        axes.text(
            (start + end) / 2,
            0.985,
            label,
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
    axes.axhline(
        test.xz_bits_per_character,
        color=GREY,
        linestyle="--",
        linewidth=1.2,
        label=f"xz -9e on the test text ({test.xz_bits_per_character:.2f})",
    )
    axes.set_xlim(0, ends[-1] * 1.01)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    dress(axes, f"{summary.name}: bits per character by phase", "characters trained on", "bits per character")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.86), frameon=False, fontsize=9)
    return png(figure)


def cost_plot(config: CharacterRun, vocabulary_size: int, summary: Summary) -> bytes:
    """Return what a character costs at each sequence length: computed FLOPs, measured time, memory per rank."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    flops, time, memory = figure.subplots(1, 3)
    model = config.character_model(len(config.phases) - 1, vocabulary_size)
    lengths = np.array([phase.sequence_length for phase in summary.phases])
    grid = [int(length) for length in np.geomspace(lengths.min(), 8 * lengths.max(), 25)]

    full = [replace(model, windows=(length,) * model.layers, dilated_heads=0) for length in grid]
    flops.plot(
        grid,
        [training_flops_per_token(model, length) / 1e6 for length in grid],
        color=BLUE,
        label=f"windows {min(model.windows):,}-{max(model.windows):,}",
    )
    flops.plot(
        grid,
        [training_flops_per_token(each, length) / 1e6 for each, length in zip(full, grid, strict=True)],
        color=GREY,
        linestyle="--",
        label="full attention",
    )
    phases = [
        training_flops_per_token(config.character_model(index, vocabulary_size), phase.sequence_length) / 1e6
        for index, phase in enumerate(config.phases)
    ]
    flops.plot(lengths, phases, "o", color=ORANGE, label="phases of this run")
    dress(flops, "Compute, from the formula", "sequence length", "million FLOPs per character")

    time.plot(
        lengths,
        [1e6 / phase.tokens_per_second for phase in summary.phases],
        "o-",
        color=ORANGE,
        label=f"phases of this run, {summary.ranks} ranks",
    )
    dress(time, "Time, measured", "sequence length", "microseconds per character")

    estimates = [
        phase_memory(config, index, vocabulary_size=vocabulary_size, ranks=summary.ranks).total
        for index in range(len(config.phases))
    ]
    memory.plot(
        lengths, np.array(estimates) / 2**20, "o--", color=GREY, label="model and activations, from the formula"
    )
    memory.plot(
        lengths,
        [phase.peak_memory_bytes / 2**20 for phase in summary.phases],
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


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return the mean of each value and its neighbours, over about a fiftieth of the run."""
    width = max(1, len(values) // 50)
    sums = np.convolve(values, np.ones(width), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), mode="same")


def dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give axes their words and the look that all our plots have."""
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(axis="y", color="#d9e0e6", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """Return the figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()
