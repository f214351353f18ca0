"""How high every weight of a model stands, from the embeddings to the heads; told by its name.

For fine-tuning, in which lower layers are often changed less than upper ones, or not at all.
"""

import re

from torch import nn

_LAYER = re.compile(r"(?P<decoder>decoder\.)?layers?\.(?P<number>\d+)\.")
_EMBEDDINGS = re.compile(r"embed|shared\.")


def layer_heights(model: nn.Module) -> dict[str, int]:
    """Returns the height of every parameter by its name.

    It is 0 for embeddings, those of positions and their norms included; 1, 2, ... for the layers from the lowest, those
    of a decoder above those of its encoder; and one more for everything above or beside them, such as heads.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = {name: found for name in names if (found := _LAYER.search(name))}
    below_decoder = max((1 + int(each["number"]) for each in layers.values() if not each["decoder"]), default=0)
    heights = {
        name: 1 + int(each["number"]) + (below_decoder if each["decoder"] else 0) for name, each in layers.items()
    }
    top = 1 + max(heights.values(), default=0)
    return {name: heights.get(name, 0 if _EMBEDDINGS.search(name) else top) for name in names}


def freeze_lower_layers(model: nn.Module, layers: int) -> None:
    """Lets the embeddings and the lowest layers of a model, in place, be trained no more; 0 changes nothing.

    Call it before an optimizer is made.

    Raises:
        ValueError: the model has fewer layers, or nothing would be left to train.
    """
    if layers == 0:
        return
    heights = layer_heights(model)
    present = max((height for name, height in heights.items() if _LAYER.search(name)), default=0)
    if layers > present:
        raise ValueError(f"{layers} layers are to be frozen, but the model has {present}")
    for name, parameter in model.named_parameters():
        if heights[name] <= layers:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("nothing would be left to train")
