"""The tokens that a folder adds to its vocabulary, in the order in which transformers gives them ids."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from longformer.files import read_json

SETTINGS, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_OTHERS = ("additional_special_tokens", "extra_special_tokens")
_LISTED = "added_tokens_decoder"


def read_settings(directory: Path) -> dict[str, Any]:
    """Returns tokenizer_config.json, and what the older special_tokens_map.json says beside it; {} without them.

    Raises:
        LongformerError: one of them is damaged.
    """
    settings = _read(directory / SETTINGS)
    # As transformers does: who lists the added tokens has said all of them.
    return settings if _LISTED in settings else settings | _read(directory / MAP)


def added_tokens(
    directory: Path | None, settings: Mapping[str, Any], whole: Iterable[Mapping[str, Any]]
) -> list[AddedToken]:
    """Returns the tokens that the files of a folder add; those that the vocabulary holds keep their ids.

    Args:
        directory: with added_tokens.json, None where nothing is to be read.
        settings: of `read_settings`.
        whole: `added_tokens` of tokenizer.json.

    Raises:
        LongformerError: added_tokens.json is damaged.
    """
    named = [token for role in ROLES if (token := settings.get(role))]
    for key in _OTHERS:
        others = settings.get(key) or []
        named += others.values() if isinstance(others, dict) else others
    special = {_content(token) for token in named}
    listed: dict[int, AddedToken] = {}
    if _LISTED in settings:
        listed |= {int(number): _token(token, special=False) for number, token in settings[_LISTED].items()}
    elif directory is not None:
        for content, number in _read(directory / ADDED).items():
            is_special = content in special
            listed[number] = AddedToken(content, special=is_special, normalized=not is_special)
    known = {token.content for token in listed.values()}
    for token in whole:
        if _LISTED not in settings or token["content"] not in known:
            listed[token["id"]] = _token(token, special=False)
    found = {token.content: token for _, token in sorted(listed.items())}
    for token in named:
        found.setdefault(_content(token), _token(token, special=True))
    return list(found.values())


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _token(token: str | Mapping[str, Any], *, special: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=special)
    flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in token}
    return AddedToken(token["content"], special=special or bool(token.get("special")), **flags)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
