"""The tokens that a folder adds to its vocabulary, in the order in which transformers gives them ids."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from longformer.files import read_json

SETTINGS, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
OTHERS = "additional_special_tokens"
EXTRA, _OF_MODEL, _LISTED = "extra_special_tokens", "model_specific_special_tokens", "added_tokens_decoder"


def read_settings(directory: Path) -> dict[str, Any]:
    """Returns tokenizer_config.json, and what the older special_tokens_map.json says beside it; {} without them.

    Raises:
        LongformerError: one of them is damaged.
    """
    settings = _read(directory / SETTINGS)
    if OTHERS in settings and not settings.get(EXTRA):
        settings[EXTRA] = settings.pop(OTHERS)
    if isinstance(settings.get(EXTRA), dict):
        settings[_OF_MODEL] = settings.get(_OF_MODEL, {}) | settings.pop(EXTRA)
    if _LISTED in settings:  # then transformers reads nothing else
        return settings
    older = _read(directory / MAP)
    if isinstance(older.get(EXTRA), list):
        older[EXTRA] = [*(settings.get(EXTRA) or []), *older[EXTRA]]
    return settings | older


def added_tokens(
    directory: Path | None, settings: Mapping[str, Any], whole: Iterable[Mapping[str, Any]], present: Collection[str]
) -> list[AddedToken]:
    """Returns the tokens that the files of a folder add; those that the vocabulary holds keep their ids.

    Args:
        directory: with added_tokens.json, None where nothing is to be read.
        settings: of `read_settings`.
        whole: `added_tokens` of tokenizer.json.
        present: tokens that the tokenizer has added already.

    Raises:
        LongformerError: added_tokens.json is damaged.
    """
    named = [token for role in ROLES if (token := settings.get(role))]
    named += [token for key, token in settings.items() if _is_token(key, token) and key not in ROLES]
    named += settings.get(_OF_MODEL, {}).values()
    listed: dict[int, AddedToken] = {}
    if _LISTED in settings:
        listed |= {int(number): _token(token, special=False) for number, token in settings[_LISTED].items()}
    else:
        # What only special_tokens_map.json names by its older key (PRIMERA's <doc-sep>) is an ordinary token here.
        special = set(map(content_of, [*named, *(settings.get(EXTRA) or [])]))
        for content, number in ({} if directory is None else _read(directory / ADDED)).items():
            is_special = content in special
            listed[number] = AddedToken(content, special=is_special, normalized=not is_special)
        listed |= {token["id"]: _token(token, special=False) for token in whole}
    found = {token.content: token for _, token in sorted(listed.items())}
    for content in set(map(content_of, named)) & found.keys():
        found[content].special = True
    for token in [*named, *(settings.get(EXTRA, settings.get(OTHERS)) or [])]:
        if content_of(token) not in present:
            found.setdefault(content_of(token), _token(token, special=True))
    return list(found.values())


def _is_token(key: str, value: Any) -> bool:
    return key.endswith("_token") and isinstance(value, (str, dict))


def content_of(token: str | Mapping[str, Any]) -> str:
    """Returns the text of a token, which settings give alone or with its flags."""
    return token if isinstance(token, str) else str(token["content"])


def _token(token: str | Mapping[str, Any], *, special: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=special)
    flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in token}
    return AddedToken(token["content"], special=special or bool(token.get("special")), **flags)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
