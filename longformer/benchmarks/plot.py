"""The attention benchmark as a picture: time and memory over length, one row of panels for each pattern."""

from pathlib import Path

from longformer.benchmarks.attention import Measurement
from longformer.benchmarks.setting import Setting


def plot(measurements: list[Measurement], file: Path) -> None:
    """Draws `measurements` to an image file; its ending chooses the format."""
    from matplotlib.figure import Figure

    patterns = list(dict.fromkeys(pattern(each.setting) for each in measurements))
    figure = Figure(figsize=(11, 4 * len(patterns)), layout="constrained")
    rows = figure.subplots(len(patterns), 2, squeeze=False)
    for (time_panel, memory_panel), name in zip(rows, patterns, strict=True):
        of_pattern = [each for each in measurements if pattern(each.setting) == name]
        for engine in dict.fromkeys(each.engine for each in of_pattern):
            points = sorted(
                (each.setting.positions, each.seconds * 1e3, each.extra_bytes / 2**20)
                for each in of_pattern
                if each.engine == engine
            )
            positions, milliseconds, mebibytes = zip(*points, strict=True)
            time_panel.loglog(positions, milliseconds, marker="o", label=engine)
            memory_panel.loglog(positions, mebibytes, marker="o", label=engine)
        time_panel.set(title=name, xlabel="positions", ylabel="milliseconds")
        memory_panel.set(title="memory a run adds", xlabel="positions", ylabel="MiB")
        time_panel.legend()
    figure.savefig(file, dpi=150)


def pattern(setting: Setting) -> str:
    """Returns in words what two settings of different length have in common."""
    words = [f"window {setting.window}"]
    if setting.dilation > 1:
        words.append(f"dilation {setting.dilation}")
    if setting.global_tokens:
        words.append(f"{setting.global_tokens} global token{'s' if setting.global_tokens > 1 else ''}")
    if setting.causal:
        words.append("causal")
    words.append("forward and backward" if setting.backward else "forward")
    return ", ".join(words)
