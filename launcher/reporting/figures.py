"""The pictures of an HTML report, as PNG bytes, from plain numbers."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from launcher.reporting.html import Figure, Part, Section, WeightedText
from launcher.reporting.text import short

INK = "#1f2933"
BLUE = "#2563a8"
ORANGE = "#d9822b"
GREY = "#9aa5b1"
_COLOURS = (BLUE, ORANGE, GREY, "#3c8d5a", "#8a4fa3")
FAINTEST = 1e-3
"""The smallest probability that a picture of attention tells from none."""


def curve(title: str, y_label: str, tokens: Sequence[float], values: Sequence[float]) -> bytes:
    """Returns a quantity over the tokens trained on, and the mean of its neighbourhood."""
    canvas = Canvas(figsize=(9, 3.2), layout="constrained")
    axes = canvas.add_subplot()
    axes.plot(tokens, values, color=BLUE, alpha=0.25, linewidth=0.8)
    axes.plot(tokens, smoothed(np.asarray(values, dtype=float)), color=BLUE, linewidth=1.8)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    dress(axes, title, "tokens trained on", y_label)
    return png(canvas)


def length_histogram(lengths: Mapping[str, Sequence[int]], unit: str = "tokens") -> bytes:
    """Returns how many documents have which length, for each kind of text such as documents and summaries."""
    canvas = Canvas(figsize=(9, 3.2), layout="constrained")
    axes = canvas.add_subplot()
    longest = max((max(values, default=1) for values in lengths.values()), default=1)
    shortest = max(1, min((min(values, default=1) for values in lengths.values()), default=1))
    bins = np.geomspace(shortest, longest + 1, 40)
    for colour, (name, values) in zip(_COLOURS, lengths.items(), strict=False):
        label = f"{name}: {len(values):,}, median {np.median(values):,.0f}" if len(values) else f"{name}: none"
        axes.hist(values, bins=list(bins), color=colour, alpha=0.6, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=9)
    dress(axes, "Lengths of the documents", unit, "documents")
    return png(canvas)


def scores_by_length(lengths: Sequence[int], scores: Mapping[str, Sequence[float]], *, bins: int = 5) -> bytes:
    """Returns mean scores, with standard errors, of equally many documents at a time, from short to long.

    Args:
        lengths: of the documents, in tokens.
        scores: by name, such as ROUGE-2, one per document.
        bins: how many groups; fewer where there are fewer documents.
    """
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    axes = canvas.add_subplot()
    groups = [each for each in np.array_split(np.argsort(lengths, kind="stable"), bins) if len(each)]
    middles = [float(np.median(np.asarray(lengths)[group])) for group in groups]
    for colour, (name, values) in zip(_COLOURS, scores.items(), strict=False):
        by_group = [np.asarray(values, dtype=float)[group] for group in groups]
        errors = [float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0 for each in by_group]
        means = [float(each.mean()) for each in by_group]
        axes.errorbar(middles, means, yerr=errors, marker="o", capsize=3, color=colour, label=name)
    axes.legend(frameon=False, fontsize=9)
    dress(axes, "Scores by length of the document", "tokens of the document (median of each group)", "score")
    return png(canvas)


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> bytes:
    """Returns how often each class was taken for each, (classes, classes) by what it is and what it was taken for.

    Colours are shares of the row.
    """
    size = 2.2 + 0.45 * len(classes)
    canvas = Canvas(figsize=(size + 1, size), layout="constrained")
    axes = canvas.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else INK
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
    names = [name if len(name) <= 20 else f"{name[:19]}…" for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    dress(axes, "Confusions", "taken for", "is")
    axes.grid(visible=False)
    return png(canvas)


def reliability_diagram(probabilities: np.ndarray, right: np.ndarray, *, bins: int = 10) -> bytes:
    """Returns how many statements of about the same probability were right, and how many statements there are.

    Args:
        probabilities: (statements,) from 0 to 1.
        right: (statements,) bool.
        bins: of equal width.
    """
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    axes, below = canvas.subplots(1, 2)
    bin_of = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    filled = counts > 0
    means = [np.bincount(bin_of, values, minlength=bins)[filled] / counts[filled] for values in (probabilities, right)]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(*means, marker="o", color=BLUE)
    dress(axes, "Reliability", "probability", "share that is right")
    below.bar((np.arange(bins) + 0.5) / bins, counts, width=0.9 / bins, color=BLUE)
    dress(below, "How sure", "probability", "statements")
    return png(canvas)


def attention_picture(maps: Mapping[str, np.ndarray]) -> bytes:
    """Returns who attends to whom, a panel for each map (positions, positions) by its title.

    Colours are logarithmic; white is never seen, or less than `FAINTEST`.
    """
    columns = 3 if len(maps) % 3 == 0 else min(2, len(maps))
    rows = -(-len(maps) // columns)
    canvas = Canvas(figsize=(3.6 * columns + 0.8, 3.7 * rows), layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(maps) :]:
        panel.set_visible(False)
    for panel, (title, values) in zip(panels, maps.items(), strict=False):
        seen = np.ma.masked_less(values, FAINTEST)
        image = panel.imshow(seen, cmap="viridis_r", norm=LogNorm(FAINTEST, 1.0), interpolation="nearest")
        dress(panel, title, "attended to", "position")
        panel.grid(visible=False)
    canvas.colorbar(image, ax=list(panels[: len(maps)]), shrink=0.8, label="probability")
    return png(canvas)


MAX_LAYERS = 3


def attention_section(maps: Sequence[Tensor], pieces: Sequence[str], *, about: str) -> Section:
    """Returns pictures of the lowest, a middle and the highest layer, of their first and last heads.

    Where heads are dilated, the last one is, and the first is not.

    Args:
        maps: per layer (heads, positions, positions) probabilities, from `longformer.inference.attention_maps`.
        pieces: the text, position by position.
        about: what the text is and what can be seen, in a sentence.
    """
    layers = sorted({0, len(maps) // 2, len(maps) - 1})[:MAX_LAYERS]
    panels = {
        f"layer {layer + 1}, {name} head": maps[layer][head].numpy()
        for name, head in (("first", 0), ("last", -1))
        for layer in layers
    }
    parts: list[Part] = [Figure(attention_picture(panels), "Rows attend to columns; a logarithmic scale.")]
    for layer in layers:
        weights = maps[layer][:, -1].mean(0)
        shades = (weights / weights.max()).tolist()
        caption = f"Layer {layer + 1}: what the last position attends to, all heads together (darkest: most)."
        parts.append(WeightedText(caption, tuple(zip(pieces, shades, strict=True))))
    return Section("Attention", about, tuple(parts))


def smoothed(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each value and its neighbours, over about a fiftieth of the run."""
    width = max(1, len(values) // 50)
    sums = np.convolve(values, np.ones(width), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), mode="same")


def dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Gives axes their words and the look that all our plots have."""
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(axis="y", color="#d9e0e6", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Canvas) -> bytes:
    """Returns the figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()
