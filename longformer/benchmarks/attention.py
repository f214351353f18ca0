"""Time and memory of our attention beside its peers: times in one process by turns, CPU memory in a process each.

`compare` is what `longformer bench attention` prints, and what a script on a bare GPU machine calls: nothing here
needs more than PyTorch.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import torch

from longformer.benchmarks.attention_engines import BLOCKED, ENGINES, HUGGING_FACE
from longformer.benchmarks.busy import BusyMeasurement, compare_busy
from longformer.benchmarks.memory import in_own_process, memory_of
from longformer.benchmarks.setting import Attend, Setting
from longformer.benchmarks.timing import timed
from longformer.costs.peak import measured_peak_flops

# Of an engine in a process of its own, beside one run that is not counted.
RUNS_PER_TURN = 5

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Measurement:
    """One engine in one setting.

    Seconds are those of the fastest of several runs, backward 0 where it was not asked for. TFLOP/s count visible
    pairs of the band only; the share is of what a large matrix product reaches on the same device in the same dtype.
    `extra_bytes` is what one run adds to the peak memory, inputs not counted; `peak_bytes` that whole peak;
    `saved_bytes` what forward keeps for backward, query, key and value included.
    """

    engine: str
    setting: Setting
    forward_seconds: float
    backward_seconds: float
    forward_tflops: float
    backward_tflops: float
    share_of_peak: float
    extra_bytes: int
    peak_bytes: int
    saved_bytes: int

    @property
    def seconds(self) -> float:
        """Forward and backward together."""
        return self.forward_seconds + self.backward_seconds


@dataclass(frozen=True)
class Absence:
    """An engine that was not measured in a setting, and why."""

    engine: str
    setting: Setting
    reason: str


@dataclass
class Comparison:
    """What came out of a run of the benchmark."""

    measurements: list[Measurement] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """Returns plain data."""
        return {
            "measurements": [asdict(measurement) for measurement in self.measurements],
            "absences": [asdict(absence) for absence in self.absences],
        }


def compare(settings: Iterable[Setting], *, repeats: int, report: Callable[[str], None]) -> Comparison:
    """Measures every engine in every setting; `report` is told what is being done.

    Raises:
        LongformerError: a process measuring memory failed.
    """
    comparison = Comparison()
    for setting in settings:
        report(f"timing {setting.positions:,} positions")
        contenders = {}
        for engine in ENGINES:
            attend, reason = prepared(setting, engine.build, engine.why_not(setting))
            if attend is None:
                comparison.absences.append(Absence(engine.name, setting, reason))
            else:
                contenders[engine.name] = attend
        times = time_by_turns(setting, contenders, repeats)
        for name, attend in contenders.items():
            report(f"memory of {name} at {setting.positions:,} positions")
            extra, peak = memory(setting, name, attend)
            comparison.measurements.append(
                measurement(name, setting, times[name], extra, peak, saved_bytes(setting, attend))
            )
    return comparison


def prepared(setting: Setting, build: Callable[[Setting], Attend], reason: str | None) -> tuple[Attend | None, str]:
    """Returns an engine that has run once, or None and why it did not."""
    if reason is not None:
        return None, reason
    try:
        attend = build(setting)
        run(setting, attend, setting.inputs())
    except (RuntimeError, ValueError, ImportError) as problem:
        return None, f"failed: {(str(problem).strip().splitlines() or [type(problem).__name__])[0]}"
    return attend, ""


def measurement(
    name: str, setting: Setting, times: tuple[float, float], extra: int, peak: int, saved: int
) -> Measurement:
    """Puts together what was measured of an engine."""
    (forward, backward), (forward_flops, backward_flops) = times, setting.useful_flops
    reachable = measured_peak_flops(torch.device(setting.device), getattr(torch, setting.dtype))
    return Measurement(
        engine=name,
        setting=setting,
        forward_seconds=forward,
        backward_seconds=backward,
        forward_tflops=forward_flops / forward / 1e12,
        backward_tflops=backward_flops / backward / 1e12 if setting.backward else 0.0,
        share_of_peak=(forward_flops + backward_flops) / (forward + backward) / reachable,
        extra_bytes=extra,
        peak_bytes=peak,
        saved_bytes=saved,
    )


def run(setting: Setting, attend: Attend, inputs: Inputs) -> tuple[float, float]:
    """Attends, and finds the gradients when the setting says so; returns the seconds of both."""
    query, key, value, gradient = inputs
    with torch.set_grad_enabled(setting.backward):
        forward, output = timed(partial(attend, query, key, value), setting.device)
    if not setting.backward:
        return forward, 0.0
    backward, _ = timed(lambda: torch.autograd.grad(output, (query, key, value), gradient), setting.device)
    return forward, backward


def time_by_turns(setting: Setting, contenders: dict[str, Attend], repeats: int) -> dict[str, tuple[float, float]]:
    """Returns the fastest of `repeats` runs, forward and backward; all engines run before any runs again."""
    inputs = setting.inputs()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, attend in contenders.items():
            times[name].append(run(setting, attend, inputs))
    return {name: min(runs, key=sum) for name, runs in times.items()}


def saved_bytes(setting: Setting, attend: Attend) -> int:
    """Returns the bytes of distinct memory that forward keeps for backward."""
    if not setting.backward:
        return 0
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # Holding the storage keeps its address from being given to another one.
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    query, key, value, _ = setting.inputs()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend(query, key, value)
    return sum(storage.nbytes() for storage in kept.values())


def memory(setting: Setting, name: str, attend: Attend) -> tuple[int, int]:
    """Returns what one run adds to the peak memory, and that peak, in bytes."""
    if setting.device == "cuda":
        inputs = setting.inputs()
        return memory_of(lambda: run(setting, attend, inputs), setting.device)
    what = f"the memory of {name} at {setting.positions} positions"
    extra, peak = in_own_process(__name__, "memory", name, json.dumps(asdict(setting)), what=what)
    return extra, peak


def compare_busy_attention(
    setting: Setting, *, busy: int, repeats: int, report: Callable[[str], None]
) -> list[BusyMeasurement]:
    """Times ours and, where it can compute the setting, Hugging Face's beside busy processes; see `compare_busy`."""

    def measure(engine: str, environment: Mapping[str, str]) -> list[float]:
        what, setting_json = f"{engine} at {setting.positions} positions", json.dumps(asdict(setting))
        return list(in_own_process(__name__, "times", engine, setting_json, what=what, environment=environment))

    both = (engine for engine in ENGINES if engine.name in (BLOCKED, HUGGING_FACE))
    contenders = [engine.name for engine in both if engine.why_not(setting) is None]
    return compare_busy(measure, contenders, positions=setting.positions, busy=busy, repeats=repeats, report=report)


def main(measured: str, name: str, setting: Setting) -> None:
    """Prints the memory of one run in this process, or the times of several."""
    (engine,) = (engine for engine in ENGINES if engine.name == name)
    # A small run first: what libraries allocate once is not part of the attention.
    small = replace(setting, positions=min(setting.positions, 2 * setting.window))
    run(small, engine.build(small), small.inputs())
    attend, inputs = engine.build(setting), setting.inputs()
    if measured == "memory":
        print(json.dumps(memory_of(lambda: run(setting, attend, inputs), setting.device)))
    else:
        print(json.dumps([sum(run(setting, attend, inputs)) for _ in range(1 + RUNS_PER_TURN)][1:]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Setting(**json.loads(sys.argv[3])))
