import inspect

import pytest

from cliplens import errors
from cliplens.errors import CliplensError, InputError, nearest_names, unknown_name


def test_every_message_has_the_one_form() -> None:
    error = InputError(expected="three pairs.", found="two", fix="add one.")
    assert str(error) == "Expected three pairs, but found two. Fix: add one."
    assert (error.expected, error.found, error.fix) == ("three pairs", "two", "add one")


def test_there_is_one_root() -> None:
    ours = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    ours.remove(errors.NearestNames)
    assert all(issubclass(c, CliplensError) for c in ours)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    ours = {n for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__}
    ours -= {"NearestNames"}
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in ours)


def test_input_errors_are_value_errors() -> None:
    with pytest.raises(ValueError):
        raise InputError(expected="a", found="b", fix="c")


def test_unknown_names_list_the_nearest() -> None:
    error = unknown_name("model", "vit-b32", ["ViT-B-32", "ViT-L-14", "RN50"])
    assert "Expected the name of a model (3 known), but found 'vit-b32'." in str(error)
    assert "'ViT-B-32'" in str(error)


def test_unknown_names_say_when_nothing_is_near() -> None:
    hooks = [f"blocks.{n}.hook_resid_pre" for n in range(9)]
    listed = ", ".join(map(repr, hooks[:6]))
    assert str(unknown_name("hook", "zzz", hooks)).endswith(f"none of which is near: {listed} and 3 more.")
    nothing = str(unknown_name("activation", None, []))
    assert nothing.startswith("Expected the name of an activation (0 known), but found None.")


def test_nearest_ignores_letter_case_and_puts_the_best_first() -> None:
    assert nearest_names("VISION", ["text", "vision", "visions"])[0] == "vision"


def test_names_that_hold_the_one_asked_for_are_near() -> None:
    assert "gpt2-small-residual-stream-jb" in nearest_names("gpt2", ["llama", "gpt2-small-residual-stream-jb"])


def test_control_characters_are_written_out() -> None:
    error = InputError(expected="a", found="'\x1b[31mred\x07' and 猫 👩‍👩‍👧", fix="c")
    assert str(error) == "Expected a, but found '\\x1b[31mred\\x07' and 猫 👩‍👩‍👧. Fix: c."
