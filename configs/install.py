"""Installs this project and its development tools into the environment of the Python that runs this file.

`make setup` calls it in a fresh .venv, so it needs nothing but the standard library and pip. uv does the work: it takes
less than half of pip's time and picks the build of PyTorch that suits the machine. Where uv cannot be had, pip does it.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LOCKED = ["--constraint", "configs/constraints.txt"]
# DeepSpeed comes as source and imports torch while it is built, so these are installed before it.
BUILD_REQUIREMENTS = ["torch", "setuptools>=77", "ninja", "packaging", "py-cpuinfo", "numpy", "psutil"]
PROJECT = ["--no-build-isolation", "--editable", ".[development]"]

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
UV = [sys.executable, "-m", "uv", "--quiet"]


def main() -> None:
    """Installs with uv, or with pip where uv cannot be had; exits with the installer's message if it fails."""
    if succeeds([*PIP, "install", "--quiet", *LOCKED, "uv"]):
        install = [*UV, "pip", "install", *LOCKED]
        environment = {**uv_sources(pip_settings()), **os.environ}
        # The CUDA build for the driver of this machine, or the CPU build where there is no GPU.
        suited = [*install, "--torch-backend=auto", *BUILD_REQUIREMENTS]
        if not succeeds(suited, {"UV_HTTP_RETRIES": "1", **environment}):
            print("PyTorch's own index cannot be used, so torch comes from pip's sources", file=sys.stderr)
            require([*install, *BUILD_REQUIREMENTS], environment)
        # pip compiles what it installs, uv only if told so. A process that has to compile torch, DeepSpeed and MLflow
        # takes a minute to start, each time where Python may not write (PYTHONDONTWRITEBYTECODE).
        require([*install, "--compile-bytecode", *PROJECT], environment)
    else:
        print("uv cannot be had; pip installs, which takes longer", file=sys.stderr)
        require([*PIP, "install", "--quiet", *LOCKED, *BUILD_REQUIREMENTS])
        require([*PIP, "install", "--quiet", *LOCKED, *PROJECT])


def pip_settings() -> dict[str, str]:
    """Returns pip's settings from its files and the environment, by their long names, such as "index-url"."""
    listed = subprocess.run([*PIP, "config", "list"], check=True, capture_output=True, text=True).stdout
    entries = [line.partition("=") for line in listed.splitlines()]
    # As in pip, what stands for "install" counts more than what stands for every command, the environment most.
    return {
        key.removeprefix(f"{section}."): ast.literal_eval(value)
        for section in ("global", "install", ":env:")
        for key, _, value in entries
        if key.startswith(f"{section}.")
    }


def uv_sources(settings: dict[str, str]) -> dict[str, str]:
    """Returns the environment variables that let uv read the sources of these pip settings in pip's way."""
    variables = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": " ".join(settings.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(settings.get("find-links", "").split()),
        "UV_NO_INDEX": settings.get("no-index", ""),
        "UV_INSECURE_HOST": " ".join(settings.get("trusted-host", "").split()),
        "SSL_CERT_FILE": settings.get("cert", ""),
        # pip takes the best version of all indexes, uv by default that of the first index that knows the package.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    return {name: value for name, value in variables.items() if value}


def succeeds(command: list[str], environment: dict[str, str] | None = None) -> bool:
    """Returns whether the command ends with 0; what it prints is left out."""
    return subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True).returncode == 0


def require(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs the command.

    Raises:
        SystemExit: The command failed; it has printed why.
    """
    if code := subprocess.run(command, env=environment, cwd=REPOSITORY).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
