"""The doctor finds what is really amiss: faults are injected into real files, sockets, servers and clocks."""

import http.server
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from launcher.cli import main
from launcher.commands.doctor import tables_of_nodes
from launcher.doctor.clocks import check_clock, clock_served
from launcher.doctor.devices import gpu_memory, kernels_finding, nccl_finding, no_cuda
from launcher.doctor.examination import examine
from launcher.doctor.finding import Finding, Level, worst
from launcher.doctor.network import check_host_name, check_loopback, check_ports, port_finding
from launcher.doctor.packages import check_packages, check_python, package_finding
from launcher.doctor.services import check_mlflow, check_ray, check_slurm
from launcher.doctor.shared import answer_arrived, check_shared, shared_folder
from launcher.doctor.storage import LEAST_ROOM, ROOM_TO_WARN, check_room, check_storage, room_finding

Lines = list[tuple[str, Level]]


def lines(findings: list[Finding]) -> Lines:
    for each in findings:
        assert bool(each.remedy) == (each.level is not Level.OK), each
    return [(each.check, each.level) for each in findings]


def test_a_check_that_raises_or_hangs_is_a_finding_and_the_others_answer() -> None:
    hung = threading.Event()

    def raises() -> list[Finding]:
        raise OSError("the disk is on fire\nand more")

    checks = {
        "broken": raises,
        "slow": lambda: [Finding("slow", Level.OK, str(hung.wait(60)))],
        "fine": lambda: [Finding("fine", Level.OK, "there")],
    }
    started = time.monotonic()
    found = examine(checks, seconds=0.3)
    hung.set()
    assert time.monotonic() - started < 5
    assert lines(found) == [("broken", Level.MISS), ("slow", Level.MISS), ("fine", Level.OK)]
    assert found[0].found == "the check failed: OSError: the disk is on fire"
    assert found[1].found == "no answer within 0.3 seconds"


def test_the_environment_of_the_tests_fits_pyproject() -> None:
    found = lines(check_python() + check_packages())
    assert {name for name, _ in found} >= {"python", "torch", "deepspeed", "mlflow", "webdataset", "ray"}
    assert all(level is Level.OK for name, level in found if name != "ray")


@pytest.mark.parametrize(
    ("requirement", "level", "found"),
    [
        ("torch>=99", Level.MISS, "too old for >=99"),
        ("torch<=1.0", Level.MISS, "too new for <=1.0"),
        ("no-such-package>=1", Level.MISS, "not installed"),
    ],
)
def test_packages_too_old_too_new_or_absent_are_told_apart(requirement: str, level: Level, found: str) -> None:
    finding = package_finding(Requirement(requirement), level)
    assert finding.level is level
    assert found in finding.found
    assert f'pip install "{requirement}"' in finding.remedy


def test_absent_cuda_is_explained() -> None:
    assert no_cuda(None, driver_is_there=False).level is Level.WARN
    assert "built without CUDA" in no_cuda(None, driver_is_there=True).found
    assert "built for CUDA 12.8, cannot use them" in no_cuda("12.8", driver_is_there=True).found
    assert no_cuda("12.8", driver_is_there=True).level is Level.MISS


def test_gpus_need_free_memory_and_a_way_to_talk() -> None:
    assert lines([gpu_memory(1, 79 * 2**30, 80 * 2**30)]) == [("GPU 1", Level.OK)]
    occupied = gpu_memory(0, 10 * 2**30, 80 * 2**30)
    assert (occupied.level, occupied.found) == (Level.WARN, "10 of 80 GiB free")
    assert lines([nccl_finding((2, 27, 3), gpus=8), nccl_finding(None, gpus=8), nccl_finding(None, gpus=1)]) == [
        ("NCCL", Level.OK),
        ("NCCL", Level.MISS),
        ("NCCL", Level.WARN),
    ]
    assert kernels_finding(None).level is Level.WARN


def test_a_good_directory_is_written_renamed_in_and_locked_and_left_clean(tmp_path: Path) -> None:
    found = lines(check_storage(tmp_path / "runs" / "later"))
    assert found == [("write", Level.OK), ("rename", Level.OK), ("lock", Level.OK)]
    assert list(tmp_path.iterdir()) == []


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    folder.chmod(0o500)
    try:
        yield folder
    finally:
        folder.chmod(0o700)


def test_a_directory_that_cannot_be_written_is_missing(tmp_path: Path) -> None:
    # Nobody can write into /proc, and root may write into directories that are read-only.
    with read_only(tmp_path) as folder:
        found = check_storage(Path("/proc") if os.geteuid() == 0 else folder)
    assert lines(found) == [("write", Level.MISS)]
    assert "cannot write" in found[0].found


def test_a_file_in_the_place_of_the_runs_is_found(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    assert lines(check_storage(tmp_path / "runs")) == [("write", Level.MISS)]


def test_room_is_judged_by_what_checkpoints_take(tmp_path: Path) -> None:
    assert {name for name, _ in lines(check_room(tmp_path))} == {"disk of the runs", "temporary files"}
    for free, level in ((0, Level.MISS), (LEAST_ROOM, Level.WARN), (ROOM_TO_WARN, Level.OK)):
        assert room_finding("disk", tmp_path, free).level is level


def test_loopback_and_host_name_are_examined_for_real() -> None:
    assert lines(check_loopback()) == [("loopback", Level.OK)]
    assert lines(check_host_name())[0][0] == "host name"


def test_a_port_that_somebody_listens_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port_finding(port, "tests").level is Level.WARN
        monkeypatch.setenv("MASTER_PORT", str(port))
        assert (f"port {port}", Level.WARN) in lines(check_ports())
    assert port_finding(port, "tests").level is Level.OK


def test_without_slurm_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lines(check_slurm()) == [("Slurm", Level.WARN)]


def test_a_slurm_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "sinfo"
    command.write_text("#!/bin/sh\necho 'slurm_load_partitions: Unable to contact slurm controller' >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (finding,) = check_slurm()
    assert finding.level is Level.WARN
    assert "Unable to contact slurm controller" in finding.found


def test_a_ray_address_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert lines(check_ray()) == [("Ray", Level.OK)]
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        assert lines(check_ray()) == [("Ray", Level.OK)]
    assert lines(check_ray()) == [("Ray", Level.WARN)]


def test_a_store_that_does_not_exist_yet_is_fine_and_not_made(tmp_path: Path) -> None:
    assert lines(check_mlflow(tmp_path / "runs", None)) == [("MLflow", Level.OK)]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_embedded_store_is_found(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    (finding,) = check_mlflow(tmp_path, None)
    assert finding.level is Level.WARN
    assert "Move mlflow.db away" in finding.remedy


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_dead_tracking_address_is_a_warning_without_the_password(tmp_path: Path) -> None:
    (finding,) = check_mlflow(tmp_path, f"http://me:secret@127.0.0.1:{free_port()}")
    assert finding.level is Level.WARN
    assert "127.0.0.1" in finding.found
    assert "secret" not in f"{finding}"


def test_refused_credentials_have_their_own_remedy(tmp_path: Path) -> None:
    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        (finding,) = check_mlflow(tmp_path, f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert "MLFLOW_TRACKING_USERNAME" in finding.remedy


@pytest.mark.parametrize(("seconds", "found"), [(7.0, "7.0 s behind"), (-7.0, "7.0 s ahead of")])
def test_a_clock_that_is_wrong_is_found_and_by_how_much(seconds: float, found: str) -> None:
    with clock_served(lambda: time.time() + seconds) as (_, port):
        findings = check_clock(("127.0.0.1", port))
    assert lines(findings) == [("network between nodes", Level.OK), ("clock", Level.WARN)]
    assert found in findings[1].found


def test_a_clock_that_is_right_is_fine_and_an_absent_node_is_not() -> None:
    with clock_served() as (_, port):
        assert lines(check_clock(("127.0.0.1", port)))[1] == ("clock", Level.OK)
    assert lines(check_clock(("127.0.0.1", free_port()))) == [("network between nodes", Level.MISS)]


def test_a_shared_folder_is_recognised_and_another_one_is_not(tmp_path: Path) -> None:
    with shared_folder(tmp_path) as folder:
        assert lines(check_shared(folder, "n2")) == [("shared storage", Level.OK)]
        assert answer_arrived(folder, "n2").level is Level.OK
        assert answer_arrived(folder, "n3").level is Level.MISS
    (finding,) = check_shared(tmp_path / "elsewhere", "n2")
    assert finding.level is Level.MISS
    assert "are not there" in finding.found


def test_a_lock_that_only_holds_on_its_own_node_is_found(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("written by the first node")
    (tmp_path / "lock").touch()  # as a node sees it whose file system keeps locks to itself
    (finding,) = check_shared(tmp_path, "n2")
    assert finding.level is Level.WARN
    assert "is not seen" in finding.found


def test_nodes_have_one_table_in_common_and_one_for_each_difference() -> None:
    def on(torch: str) -> list[Finding]:
        return [Finding("torch", Level.OK, torch), Finding("lock", Level.OK, "works")]

    by_node = {
        "n1": on("2.12"),
        "n2": on("2.13"),
        "n3": on("2.12"),
        "n4": [Finding("node", Level.MISS, "nothing was heard of it", "See.")],
    }
    output = io.StringIO()
    for table in tables_of_nodes(dict(list(by_node.items())[:3])):
        Console(file=output, width=80).print(table)
    words = output.getvalue().split()
    assert words == [
        "the",
        "same",
        "on",
        "all",
        "3",
        "nodes",
        "OK",
        "lock",
        "works",
        "torch",
        "OK",
        "n1,",
        "n3",
        "2.12",
        "OK",
        "n2",
        "2.13",
    ]
    assert worst(finding for found in by_node.values() for finding in found) is Level.MISS
    assert len(tables_of_nodes(by_node)) == 4


def test_the_command_speaks_to_people_and_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["level"] in ("OK", "WARN")
    assert {"check": "write", "level": "OK", "found": "runs can be written", "remedy": ""} in answer["findings"]
    (tmp_path / "runs").write_text("")
    assert main(["doctor"]) == 1
    assert "Something is missing" in capsys.readouterr().out


def test_nodes_are_examined_inside_a_job_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    assert main(["doctor", "--nodes"]) == 2
    assert "salloc --nodes 2 longformer doctor --nodes" in capsys.readouterr().err
