"""Options that name a file to write, looked at before the work whose result it is to hold."""

import os
from pathlib import Path
from typing import Annotated

import typer

PICTURES = (".png", ".svg", ".pdf")


def writable(file: Path | None) -> Path | None:
    """Makes the folder of `file` where it is missing.

    Raises:
        typer.BadParameter: no file of this name can be written.
    """
    if file is None:
        return None
    if file.is_dir():
        raise typer.BadParameter(f"{file} is a folder: name a file in it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(
            f"the folder {file.parent} cannot be made ({error.strerror}): choose another"
        ) from error
    if not os.access(file.parent, os.W_OK):
        raise typer.BadParameter(f"you may not write to the folder {file.parent}: choose another")
    return file


def writable_picture(file: Path | None) -> Path | None:
    """Does as `writable` for a picture.

    Raises:
        typer.BadParameter: as `writable`, or the ending names no format of ours.
    """
    if file is not None and file.suffix.lower() not in PICTURES:
        raise typer.BadParameter(f"{file} must end in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    return writable(file)


Measurements = Annotated[
    Path | None, typer.Option("--json", callback=writable, help="Write the measurements to this file.")
]
