"""Pictures of which tokens the layers of a trained model attend to, on a real text."""

from collections.abc import Sequence

from torch import Tensor

from launcher.html_report.figures import attention_picture
from launcher.html_report.page import Figure, Part, Section, WeightedText

MOST_LAYERS = 3


def attention_section(maps: Sequence[Tensor], pieces: Sequence[str], *, about: str) -> Section:
    """Return pictures of the lowest, a middle and the highest layer, of their first and last heads.

    Where heads are dilated, the last one is, and the first is not.

    Args:
        maps: per layer (heads, positions, positions) probabilities, from `longformer.attention_maps`.
        pieces: the text, position by position.
        about: what the text is and what can be seen, in a sentence.
    """
    layers = sorted({0, len(maps) // 2, len(maps) - 1})[:MOST_LAYERS]
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
