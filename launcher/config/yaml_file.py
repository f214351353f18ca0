"""Reads the text of a run file: YAML, `extends`, command-line overrides; and words what is wrong with it.

Knows nothing of what the keys mean. Promises one sentence per problem, naming the file or override
it comes from, the dotted path, the value, and the nearest known key.
"""

import copy
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from launcher.config.mlflow_address import without_credentials
from longformer.errors import LongformerError

Location = tuple[str | int, ...]


class _RunFileLoader(yaml.SafeLoader):
    """Safe YAML where `1e-3` is a number and a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen: set[str] = set()
        for key in keys:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is written twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes "1e-3" for text because it has no dot; everybody else takes it for a number.
_RunFileLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class LoadedYaml:
    """The merged content of a run file, and where each value was written."""

    path: Path
    content: dict[str, Any]
    files: tuple[tuple[Path, dict[str, Any]], ...]
    """Every file read, bases first, each with its own content."""
    overrides: tuple[tuple[str, Location], ...]
    """Every override as typed, with the location it sets."""

    def origin(self, location: Location) -> str:
        """Returns who wrote the value at `location`: an override, a file, or a file together with overrides in it."""
        for text, target in reversed(self.overrides):
            if location[: len(target)] == target:
                return f"override {text}"
        file = next((path for path, content in reversed(self.files) if _holds(content, location)), self.path)
        within = [text for text, target in self.overrides if target[: len(location)] == location]
        return f"{file} with {', '.join(within)}" if within else str(file)


def read(path: Path, overrides: Sequence[str]) -> LoadedYaml:
    """Returns the content of `path` over the files it extends, with `overrides` applied.

    Raises:
        LongformerError: a file is missing or not YAML, files extend each other in a circle, or an
            override is not of the form `key.key=value`.
    """
    files = tuple(_read_with_bases(path, readers=()))
    content: dict[str, Any] = {}
    for _, layer in files:
        content = _merged(content, layer)
    content = copy.deepcopy(content)  # an override must not reach into `files`
    targets = tuple((text, _apply_override(content, text)) for text in overrides)
    return LoadedYaml(path, content, files, targets)


def problems(error: ValidationError, model: type[BaseModel], written: LoadedYaml) -> str:
    """Returns one line per problem in the words of the run file.

    Where a value may be of several kinds, pydantic tells for each why it is not that one: they are one problem, that of
    the kinds that the value comes closest to.
    """
    found: dict[Location, list[tuple[Location, str, Any]]] = {}
    for problem in error.errors():
        location, value, kind = _without_kinds(problem, written.content)
        found.setdefault(value, []).append((location, kind, problem))
    lines = []
    for value, each_kind in found.items():
        closest = next((kind for location, kind, _ in each_kind if location != value), None)
        by_location: dict[Location, list[Any]] = {}
        for location, kind, problem in each_kind:
            if closest in (None, kind):
                by_location.setdefault(location, []).append(problem)
        lines += [_sentence(location, told, model, written) for location, told in by_location.items()]
    return "\n".join(lines)


def dotted(location: Location) -> str:
    """Returns the path as a reader of the file would say it: `phases[2].steps`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _read_with_bases(path: Path, *, readers: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """Returns (path, content) of every file that `path` extends, in the order they are laid, and its own last."""
    if path.resolve() in readers:
        circle = " -> ".join(reader.name for reader in (*readers[readers.index(path.resolve()) :], path))
        raise LongformerError(f"{path}: the files extend each other in a circle ({circle}); remove one `extends`")
    content = _parse(path)
    bases = content.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not (isinstance(bases, list) and all(isinstance(base, str) for base in bases)):
        raise LongformerError(f"{path}: extends is {bases!r}, but it should be the path of a file, or a list of paths")
    files = []
    for base in bases:
        if not (path.parent / base).is_file():
            raise LongformerError(f"{path}: extends {base}, but there is no file {path.parent / base}")
        files += _read_with_bases(path.parent / base, readers=(*readers, path.resolve()))
    return [*files, (path, content)]


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _RunFileLoader)
    except FileNotFoundError:
        raise LongformerError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LongformerError(f"{path}: cannot be read as text ({error})") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}" if error.problem_mark else "somewhere"
        raise LongformerError(f"{path}: is not valid YAML, {where}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise LongformerError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise LongformerError(f"{path}: should hold keys and values (`name: ...`), but holds {content!r:.60}")
    return content


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with `top` laid over it: mappings are merged key by key, everything else is replaced whole."""
    merged = dict(base)
    for key, value in top.items():
        below = base.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _apply_override(content: dict[str, Any], text: str) -> Location:
    """Sets one `a.b.0.c=value` in `content`; returns the location it sets."""
    key, equals, value = text.partition("=")
    location: Location = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    if not equals or "" in location:
        raise LongformerError(f"override {text}: should look like key=value, such as phases.0.steps=100")
    parent: Any = content  # a mapping or a list, at each step
    for depth, part in enumerate(location):
        here = dotted(location[:depth])
        if isinstance(parent, list) and not (isinstance(part, int) and part < len(parent)):
            raise LongformerError(f"override {text}: {here} is a list, its items are numbered 0 to {len(parent) - 1}")
        if type(parent) not in (list, dict):
            raise LongformerError(f"override {text}: {here} is the value {parent!r:.60}, there is nothing inside it")
        if depth == len(location) - 1:
            parent[part] = _override_value(text, value)
        elif isinstance(parent, dict) and parent.get(part) is None:
            parent[part] = {}
        parent = parent[part]
    return location


def _override_value(text: str, value: str) -> Any:
    try:
        return yaml.load(value, _RunFileLoader)
    except yaml.YAMLError:
        raise LongformerError(f"override {text}: {value!r} is not a YAML value; put text in quotes") from None


def _holds(content: Any, location: Location) -> bool:
    """Returns whether something is written at `location` of `content`."""
    try:
        for part in location:
            content = content[part]
    except (KeyError, IndexError, TypeError):
        return False
    return True


# Where pydantic speaks of Python types.
_IN_WORDS_OF_YAML = {
    "model_type": "should hold keys and values",
    "dict_type": "should hold keys and values",
    "tuple_type": "should be a list",
    "string_pattern_mismatch": "should be letters, digits, dots, dashes and underscores, the first a letter or digit",
}


def _without_kinds(problem: Any, content: Any) -> tuple[Location, Location, str]:
    """Returns where a problem is, the value of several kinds in which it is, and the kind that the value is not.

    In pydantic's locations the name of a kind, such as `literal['balanced']`, follows on that value. Where there is no
    such value, the problem's own place stands for it.
    """
    location: Location = ()
    value, kind = None, ""
    for depth, part in enumerate(problem["loc"], start=1):
        if _holds(content, (*location, part)) or (problem["type"] == "missing" and depth == len(problem["loc"])):
            location = (*location, part)
        elif value is None:
            value, kind = location, str(part)
    return location, location if value is None else value, kind


def _sentence(location: Location, alternatives: Sequence[Any], model: type[BaseModel], written: LoadedYaml) -> str:
    path, problem = dotted(location), alternatives[0]
    if problem["type"] == "extra_forbidden":
        text = f"{path} is not a known key{_suggestion(str(location[-1]), _known_keys(model, location[:-1]))}"
    elif problem["type"] == "missing":
        text = f"{path} is missing"
    elif problem["type"] == "value_error":  # a check of ours: its message begins with the field it is about
        text = f"{path}.{problem['ctx']['error']}".removeprefix(".")
    else:
        words = (_IN_WORDS_OF_YAML.get(each["type"], each["msg"].removeprefix("Input ")) for each in alternatives)
        expected = " or ".join(words).replace(" or should be ", " or ")
        text = f"{path} is {problem['input']!r:.60}, but it {expected}"
    return without_credentials(f"{written.origin(location)}: {text}")


def _suggestion(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f" (did you mean {nearest[0]}?)" if nearest else f" (known keys: {', '.join(known)})"


def _known_keys(model: type[BaseModel], location: Location) -> list[str]:
    """Returns the keys of the section at `location`, found by walking the models' annotations."""
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            candidates = (annotation, *get_args(annotation))
            model = next(item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
    return list(model.model_fields)
