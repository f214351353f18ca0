"""Claims about the model config: it refuses what cannot work and says which field is wrong."""

import dataclasses

import pytest
from pydantic import TypeAdapter, ValidationError

from longformer.models.char_lm.config import CHARACTER_MODEL_SIZES, CharacterModelConfig

VALID = {
    "vocabulary_size": 27,
    "layers": 2,
    "hidden_size": 32,
    "heads": 4,
    "feedforward_size": 64,
    "windows": (4, 8),
    "dilations": (1, 3),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocabulary_size", 0),
        ("layers", 0),
        ("heads", 3),
        ("hidden_size", 36),
        ("feedforward_size", -1),
        ("windows", (4,)),
        ("windows", (4, 0)),
        ("dilations", (1, 2, 3)),
        ("dilations", (0, 1)),
        ("dilated_heads", 5),
        ("dilated_heads", -1),
        ("position", "absolute"),
        ("dropout", 1.0),
        ("attention_dropout", -0.1),
    ],
)
def test_an_impossible_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        CharacterModelConfig(**{**VALID, field: value})


def test_only_the_last_heads_of_a_layer_are_dilated() -> None:
    config = CharacterModelConfig(**VALID)
    assert [config.head_dilations(layer) for layer in range(2)] == [(1, 1, 1, 1), (1, 1, 3, 3)]


def test_lists_from_a_file_make_the_same_config() -> None:
    assert CharacterModelConfig(**{**VALID, "windows": [4, 8], "dilations": [1, 3]}) == CharacterModelConfig(**VALID)
    assert len({CharacterModelConfig(**VALID), CharacterModelConfig(**VALID)}) == 1


def test_a_run_file_cannot_smuggle_in_an_unknown_field() -> None:
    adapter = TypeAdapter(CharacterModelConfig)
    assert adapter.validate_python(VALID) == CharacterModelConfig(**VALID)
    with pytest.raises(ValidationError, match="windws"):
        adapter.validate_python({**VALID, "windws": (1, 1)})


def test_every_field_and_size_is_documented_and_usable() -> None:
    schema = TypeAdapter(CharacterModelConfig).json_schema()["properties"]
    assert {field.name for field in dataclasses.fields(CharacterModelConfig)} == schema.keys()
    assert all(entry.get("description") for entry in schema.values())
    for size in CHARACTER_MODEL_SIZES.values():
        one_each = (1,) * size["layers"]
        CharacterModelConfig(**size, vocabulary_size=27, windows=one_each, dilations=one_each)
