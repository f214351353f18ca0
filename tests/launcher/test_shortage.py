"""Disk and memory that run short are told of once, and early enough."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.training import resource_monitor
from launcher.training.resource_monitor import (
    CHECKPOINTS_TO_SPARE,
    LAST_MEMORY,
    SCARCE_MEMORY,
    disk_shortage,
    memory_shortage,
)
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.records import Progress


@given(st.integers(0, 10**15), st.integers(1, 10**12))
def test_a_disk_is_short_when_it_does_not_hold_three_more_checkpoints(free: int, checkpoint: int) -> None:
    assert (disk_shortage(free, checkpoint) is None) == (free >= CHECKPOINTS_TO_SPARE * checkpoint)


@given(st.floats(0, 1), st.integers(10**6, 10**13))
def test_a_run_stops_only_when_memory_is_about_to_end(share: float, total: int) -> None:
    available = int(share * total)
    message, must_stop = memory_shortage(available, total)
    assert (message is not None) == (available < SCARCE_MEMORY * total)
    assert must_stop == (available < LAST_MEMORY * total)
    assert ("stops after a checkpoint" in (message or "")) == must_stop


def test_a_full_disk_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_monitor, "SECONDS_BETWEEN_LOOKS", 0.0)
    checkpoint = tmp_path / "step-00000001"
    checkpoint.mkdir()
    enormous = {"state/weights": {"size": 10**18, "sha256": ""}}
    Manifest(
        phase="short", phase_index=0, progress=Progress(), data={}, ranks=1, zero_stage=0, precision="fp32",
        config_fingerprint="", versions={}, files=enormous,
    ).write(checkpoint)  # fmt: skip
    said: list[str] = []
    watch = resource_monitor.ShortageWatch(tmp_path, said.append)
    watch.look()
    watch.look()
    (warning,) = [line for line in said if "disk" in line]
    assert "a checkpoint takes 1EB" in warning
