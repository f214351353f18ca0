"""Train Longformer and LED on this GPU beside transformers' models, with random weights, for 30 steps each.

    python benchmarks/training_on_gpu.py --output benchmarks/results/training_on_gpu.json

Prints tokens per second, MFU, peak memory, how often a step waits for the device, and where its time goes. Every model
has a process of its own and a deadline; what fails is a row of the JSON too, which is written after every row, those
that tell the most first. Ours also with DeepSpeed where that is installed. `--rehearse` does all of it on the CPU, with
tiny models. Needs this repository's root on PYTHONPATH where it is not installed.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from longformer.attention import Band
from longformer.benchmarks import published_shapes as shapes
from longformer.benchmarks.device_times import dearest_operators, in_words, lap_times, synchronize, waits
from longformer.benchmarks.machine import device_facts
from longformer.benchmarks.memory import peak_memory
from longformer.benchmarks.rows import Absent, Row, Rows
from longformer.costs.peak import measured_peak_flops
from longformer.costs.training import TrainingCost
from longformer.models import LEDConfig, LEDForConditionalGeneration, LongformerConfig, LongformerForMaskedLM
from longformer.models.common.compiling import compile_layers
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.common.token_loss import IGNORED
from longformer.models.common.weightless import without_weights
from longformer.training.objectives import Lengths

IMPORTED = ("torch", "longformer.models", "longformer.attention.fused.engine", "torch._dynamo", "transformers")
COMPILERS = {"cuda": "inductor", "cpu": "aot_eager"}
SHAPES: dict[str, dict[str, Any]] = {
    "longformer-base": shapes.LONGFORMER_BASE,
    "longformer-large": shapes.LONGFORMER_LARGE,
    "led-large": shapes.LED_LARGE,
    "modernbert-base": {},
    "modernbert-large": shapes.MODERNBERT_LARGE,
}
TINY_VOCABULARY = 128
_TINY = {"vocab_size": TINY_VOCABULARY, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
TINY: dict[str, dict[str, Any]] = {
    "longformer": _TINY | {"num_hidden_layers": 2, "attention_window": 16},
    "modernbert": _TINY | {"num_hidden_layers": 4, "local_attention": 16, "pad_token_id": 1},
    "led": {
        "vocab_size": TINY_VOCABULARY,
        "d_model": 32,
        "attention_window": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
    }
    | {
        f"{stack}_{part}": size
        for stack in ("encoder", "decoder")
        for part, size in (("ffn_dim", 64), ("attention_heads", 2))
    },
}
LABELLED = 0.15
PADDING_ID = 1
Step = Callable[[], Tensor | float]


@dataclass(frozen=True)
class Training:
    """A model of a size, who computes it, on what, and how."""

    model: str
    length: int
    batch: int
    ours: bool = True
    compiled: bool = False
    zero: int | None = None
    """Stage of DeepSpeed's ZeRO; None: a plain loop, fp32 weights under autocast in bfloat16."""
    attention: str | None = None
    """Of transformers' models that know several."""
    padding: float = 0.0
    """Share of every text that is padding."""
    device: str = "cuda"
    steps: int = 30

    @property
    def name(self) -> str:
        """The row in words."""
        words = [self.model, "ours" if self.ours else "transformers", f"{self.batch} x {self.length:,} tokens"]
        words += [self.attention or "", "compiled" if self.compiled else "eager"]
        words += [f"ZeRO {self.zero}"] * (self.zero is not None) + [f"padding {self.padding:.0%}"] * (self.padding > 0)
        return ", ".join(filter(None, words))

    def tiny(self) -> "Training":
        """Returns what a CPU does in a moment."""
        return replace(self, length=self.length // 64, batch=1, device="cpu", steps=2)


BASE = Training("longformer-base", 4_096, 8)
LARGE = Training("longformer-large", 4_096, 4)
LED = Training("led-large", 16_384, 1)
MODERN = Training("modernbert-base", 4_096, 8, ours=False, attention="sdpa", compiled=True)


def at_16k(training: Training) -> Training:
    return replace(training, length=16_384, batch=training.batch // 4)


def compiled(training: Training) -> Training:
    return replace(training, compiled=True)


def theirs(training: Training) -> Training:
    return replace(training, ours=False)


TRAININGS = [
    compiled(BASE),
    BASE,
    theirs(BASE),
    MODERN,
    compiled(LARGE),
    compiled(LED),
    compiled(at_16k(LARGE)),
    compiled(at_16k(BASE)),
    LARGE,
    LED,
    theirs(LARGE),
    theirs(LED),
    replace(compiled(BASE), zero=0),
    replace(compiled(BASE), zero=2),
    replace(compiled(LARGE), zero=2),
    replace(compiled(BASE), padding=0.3),
    replace(theirs(BASE), padding=0.3),
    replace(MODERN, model="modernbert-large", batch=4),
    at_16k(LARGE),
    at_16k(BASE),
    theirs(at_16k(BASE)),
    theirs(at_16k(LARGE)),
    at_16k(MODERN),
    replace(MODERN, attention="flash_attention_2"),
    replace(MODERN, attention="flex_attention"),
    replace(MODERN, compiled=False),
    compiled(theirs(BASE)),
    replace(compiled(LARGE), zero=0),
    replace(compiled(LED), zero=2),
    replace(BASE, zero=2),
]


# One of each kind.
REHEARSED = [
    compiled(BASE),
    theirs(BASE),
    LED,
    theirs(LED),
    replace(BASE, zero=0),
    replace(LED, zero=2),
    replace(MODERN, compiled=False, padding=0.3),
    replace(MODERN, attention="flash_attention_2"),
    replace(MODERN, attention="flex_attention"),
]


def train(setting: Training) -> dict[str, Any]:
    """Return what training costs.

    Raises:
        ValueError: a loss is not finite.
    """
    torch.manual_seed(0)
    with torch.device(setting.device):
        model = (our_model if setting.ours else transformers_model)(setting).train()
    with ExitStack() as stack:
        make = plain_step if setting.zero is None else partial(engine_step, stack)
        step = make(setting, model)
        start = time.perf_counter()
        first_loss = float(step())
        first_seconds = time.perf_counter() - start
        for _ in range(min(3, setting.steps)):
            step()
        synchronize(setting.device)
        seconds = lap_times(step, setting.device, setting.steps)
        last_loss = float(step())
        if not math.isfinite(last_loss):
            raise ValueError(f"the loss became {last_loss}")
        peak = torch.cuda.max_memory_allocated() if setting.device == "cuda" else peak_memory()
        waiting = waits(step, setting.device)
        operators = dearest_operators(step, setting.device, 2)
    typical = median(seconds)
    tokens, flops = setting.batch * tokens_of(setting), setting.batch * useful_flops(setting)
    dtype = torch.bfloat16 if setting.device == "cuda" else torch.float32
    return {
        "tokens/s": tokens / typical,
        "MFU": flops / typical / measured_peak_flops(torch.device(setting.device), dtype),
        "step ms": 1e3 * typical,
        "least ms": 1e3 * min(seconds),
        "first step s": first_seconds,
        "peak GiB": peak / 2**30,
        "waits": waiting,
        "first loss": first_loss,
        "last loss": last_loss,
        "dearest": in_words(operators),
        "operators": operators,
    }


def tokens_of(setting: Training) -> int:
    """Return the tokens of a text."""
    return round(setting.length * (1 - setting.padding))


def our_model(setting: Training) -> nn.Module:
    """Return one of our models."""
    shape = shape_of(setting)
    if setting.model.startswith("led"):
        model = LEDForConditionalGeneration(LEDConfig(**shape))
    else:
        model = LongformerForMaskedLM(LongformerConfig(**shape))
    if setting.compiled:
        compile_layers(model, backend=COMPILERS[setting.device])
    return model


def transformers_model(setting: Training) -> nn.Module:
    """Return one of transformers' models."""
    if find_spec("transformers") is None:
        raise Absent("transformers is not installed")
    if setting.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        raise Absent("flash_attn is not installed")
    if setting.attention == "flex_attention" and setting.device == "cpu":
        raise Absent("FlexAttention has no backward on the CPU")
    import transformers

    shape = shape_of(setting)
    if setting.model.startswith("modernbert"):
        options = {"sparse_prediction": True, "attn_implementation": setting.attention}
        model = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**shape, **options))
    elif setting.model.startswith("led"):
        model = transformers.LEDForConditionalGeneration(transformers.LEDConfig(**shape))
    else:
        model = transformers.LongformerForMaskedLM(transformers.LongformerConfig(**shape))
    if setting.compiled:
        model.compile(backend=COMPILERS[setting.device])
    return model


def useful_flops(setting: Training) -> float:
    """Return the operations to train on one text, whoever computes it."""
    shape, tokens = shape_of(setting), tokens_of(setting)
    if setting.model.startswith("modernbert"):
        return modernbert_flops(shape, tokens)
    with without_weights():
        if setting.model.startswith("led"):
            writer = LEDForConditionalGeneration(LEDConfig(**shape))
            cost = TrainingCost(writer, (), lambda text: text.written, global_tokens=1)
        else:
            encoder = LongformerForMaskedLM(LongformerConfig(**shape))
            cost = TrainingCost(encoder, (), lambda text: LABELLED * text.read, global_tokens=0)
    return cost.flops(Lengths(tokens, summary_length(setting)))


def shape_of(setting: Training) -> dict[str, Any]:
    """Return the sizes of a model, in the names that our configs and transformers' share."""
    kind = setting.model.partition("-")[0]
    shape = SHAPES[setting.model] | (TINY[kind] if setting.device == "cpu" else {})
    return shape | ({"max_position_embeddings": setting.length + 2} if kind == "longformer" else {})


def modernbert_flops(shape: dict[str, Any], tokens: int) -> float:
    """Return the useful operations to train a ModernBERT on one text, counted as those of ours are."""
    from transformers import ModernBertConfig

    config = ModernBertConfig(**shape)
    width, heads = config.hidden_size, config.num_attention_heads
    # The first map of the feed-forward part is twice as wide: it gates.
    layer = 2.0 * (4 * width**2 + 3 * width * config.intermediate_size)
    head = 2.0 * LABELLED * (width**2 + width * config.vocab_size)
    side = config.local_attention // 2
    window = heads * Band(side, side).forward_flops(tokens, width // heads)
    full = 4.0 * width * tokens**2
    attention = sum(full if kind == "full_attention" else window for kind in config.layer_types)
    return 3 * (tokens * (config.num_hidden_layers * layer + head) + attention)


def batches(setting: Training) -> Iterator[dict[str, Tensor]]:
    """Yield random batches on the CPU, a few over and over, so that nobody waits for them."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = TINY_VOCABULARY if setting.device == "cpu" else 50_000

    def draw(length: int) -> Tensor:
        return torch.randint(5, vocabulary, (setting.batch, length), generator=generator)

    def batch() -> dict[str, Tensor]:
        ids = draw(setting.length)
        is_token = (torch.arange(setting.length) < tokens_of(setting)).expand_as(ids)
        found = {"input_ids": ids.masked_fill(~is_token, PADDING_ID), "attention_mask": is_token.long()}
        if setting.model.startswith("led"):
            is_first = (torch.arange(setting.length) == 0).expand_as(ids).long()
            return found | {"global_attention_mask": is_first, "labels": draw(summary_length(setting))}
        chosen = (torch.rand(ids.shape, generator=generator) < LABELLED) & is_token
        return found | {"labels": ids.masked_fill(~chosen, IGNORED)}

    return cycle([batch() for _ in range(4)])


def summary_length(setting: Training) -> int:
    """Return the tokens that an LED writes."""
    return min(512, setting.length // 16)


def plain_step(setting: Training, model: nn.Module) -> Step:
    """Return a step of a loop of PyTorch alone: fp32 weights, autocast to bfloat16, fused AdamW, clipped gradients."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    stream = batches(setting)

    def step() -> Tensor:
        batch = next(stream)
        facts = {"facts": model.facts(**batch)} if isinstance(model, PretrainedModel) else {}
        if setting.device == "cuda":
            batch = {name: tensor.pin_memory().to("cuda", non_blocking=True) for name, tensor in batch.items()}
        with torch.autocast(setting.device, torch.bfloat16):
            loss = model(**batch, **facts).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def engine_step(stack: ExitStack, setting: Training, model: nn.Module) -> Step:
    """Return a step of our training engine with DeepSpeed, on one rank that leaves with the stack."""
    if find_spec("deepspeed") is None:
        raise Absent("DeepSpeed is not installed")
    from longformer.training.distributed import process_group
    from longformer.training.engine import TrainingEngine
    from longformer.training.engine_settings import EngineSettings
    from longformer.training.guards import GuardSettings, LossGuard
    from longformer.training.objectives import LABELS, summary_tokens

    rendezvous = f"file://{stack.enter_context(TemporaryDirectory())}/rendezvous"
    ranks = stack.enter_context(process_group(rank=0, local_rank=0, world_size=1, rendezvous=rendezvous))
    assert setting.zero in (0, 2)
    settings = EngineSettings(
        zero_stage=setting.zero,
        precision="bf16",
        micro_batch_size=setting.batch,
        accumulation_steps=1,
        gradient_clipping=1.0,
        weight_decay=0.01,
        layer_decay=1.0,
        adam_betas=(0.9, 0.999),
        adam_epsilon=1e-8,
    )
    engine, stream = TrainingEngine(model, settings, ranks), batches(setting)
    guard = LossGuard(GuardSettings(on_bad_loss="stop", spike_threshold=None))
    objective = summary_tokens(0.0) if setting.model.startswith("led") else LABELS
    return lambda: engine.train_step(stream, objective, learning_rate=1e-5, guard=guard).loss


def work(kind: str, **arguments: Any) -> dict[str, Any]:
    """Return the result of a row."""
    return device_facts(**arguments) if kind == "machine" else train(Training(**arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("training_on_gpu.json"), help="JSON file to write")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which nothing more is begun")
    parser.add_argument("--rehearse", action="store_true", help="the same on the CPU, with tiny models")
    arguments = parser.parse_args()
    if not arguments.rehearse and not torch.cuda.is_available():
        sys.exit("error: no CUDA device; --rehearse does the same on the CPU")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    trainings = [each.tiny() for each in REHEARSED] if arguments.rehearse else TRAININGS
    about_machine = Row("machine", {"kind": "machine", "device": "cpu" if arguments.rehearse else "cuda"})
    rows = [Row(each.name, {"kind": "training", **asdict(each)}, seconds=120.0) for each in trainings]
    Rows(arguments.output, {"rehearsal": arguments.rehearse}, arguments.minutes, IMPORTED).take(
        [about_machine, *rows, about_machine], work
    )


if __name__ == "__main__":
    main()
