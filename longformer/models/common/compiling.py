"""Compiling a model layer by layer, in place: its modules and the names of its weights stay as they are.

The switches of PyTorch's compiler that have no public name are set here; seen in torch 2.13.
"""

from typing import Any

from torch import nn

_GRAPHS = 64
"""More than a model has kinds of layers times kinds of batches (padded or not, with global tokens or not, in training
or not); PyTorch would give up compiling at 8."""


def compile_layers(model: nn.Module, *, backend: Any = "inductor") -> None:
    """Has every layer of a Longformer, LED or character model compiled when it is first called.

    A layer is one graph for all lengths and numbers of global tokens; layers of one kind share it. There is another one
    for what is another computation: padding taken out or not, no global token, one, few or many (see
    `global_attention`), a batch of one, evaluation.

    Args:
        model: not sharded by hooks in its layers, as ZeRO 3 does.
        backend: of torch.compile.
    """
    import torch._dynamo.config as dynamo  # takes a second, which only those pay who compile
    import torch.fx.experimental._config as shapes

    dynamo.recompile_limit = max(_GRAPHS, dynamo.recompile_limit)
    # Else as many global tokens as examples in the first batch would be taken for a rule.
    shapes.use_duck_shape = False
    for layers in model.modules():
        if isinstance(layers, nn.ModuleList):
            for layer in layers:
                layer.compile(dynamic=True, backend=backend)
