"""What `make setup` relies on: the locked versions can be had from a public index alone, and pip's sources reach uv."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from configs.install import LOCKED, pip_settings, uv_sources

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(find_spec("uv") is None and "CI" not in os.environ, reason="uv is not installed")
def test_the_locked_versions_resolve_on_every_python_from_the_index_alone(tmp_path: Path) -> None:
    sources = uv_sources(pip_settings())
    # A folder of wheels on this machine would hide what another machine does not find.
    own = {"UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_TORCH_BACKEND"}
    environment = {name: value for name, value in {**sources, **os.environ}.items() if name not in own}
    compiles = {
        python: subprocess.Popen(
            [
                *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", "development", *LOCKED),
                *("--python-platform", "x86_64-unknown-linux-gnu", "--python-version", python),
                *("--no-python-downloads", "--quiet", "--output-file", str(tmp_path / python)),
            ],
            env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
        )
        for python in ("3.11", "3.12", "3.13")
    }  # fmt: skip
    errors = {python: process.communicate()[1] for python, process in compiles.items()}
    assert {python: errors[python] for python, process in compiles.items() if process.returncode} == {}
    for python in compiles:
        assert "triton==3.7" in (tmp_path / python).read_text()


def test_sources_that_pip_is_configured_with_are_given_to_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        "[global]\nindex-url = https://mirror.example/simple\nextra-index-url =\n  https://one.example/simple\n"
        "  https://two.example/simple\nfind-links = /wheels\ncert = /etc/company.pem\n"
        "[install]\ntrusted-host = mirror.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_FIND_LINKS", "/first /second")
    sources = uv_sources(pip_settings())
    assert sources == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/first,/second",
        "UV_INSECURE_HOST": "mirror.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": "/etc/company.pem",
    }


def test_a_wheel_holds_all_files_of_the_packages_and_says_that_they_are_typed(tmp_path: Path) -> None:
    packages = ("launcher", "longformer", "data_pipeline", "slurm")
    for name in packages:
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    files = {str(path.relative_to(tmp_path)) for name in packages for path in (tmp_path / name).rglob("*.*")}
    build = "import setuptools.build_meta; print(setuptools.build_meta.build_wheel('.'))"
    built = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=True)
    held = set(zipfile.ZipFile(tmp_path / built.stdout.splitlines()[-1]).namelist())
    assert {f"{name}/py.typed" for name in packages if name != "slurm"} <= held
    assert sorted(files - held) == []
