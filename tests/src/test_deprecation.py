import pytest

from cliplens import errors
from cliplens.deprecation import deprecated_names, renamed_keywords
from cliplens.hooked import CompiledReading
from cliplens.pairs import Pairs
from cliplens.store import harvest
from cliplens.store.live import provider_of
from cliplens.stream import stream

forward = deprecated_names("cliplens.old", {"Gone": "cliplens.errors:InputError", "home": "cliplens.errors"})


def test_an_old_name_warns_and_gives_the_new_object():
    with pytest.warns(DeprecationWarning, match=r"cliplens\.old\.Gone is now cliplens\.errors\.InputError"):
        assert forward("Gone") is errors.InputError


def test_an_old_module_is_forwarded_too():
    with pytest.warns(DeprecationWarning, match="now cliplens.errors;"):
        assert forward("home") is errors


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        forward("other")


@renamed_keywords(old="new", former="other")
def function(new: int, *, other: int = 0) -> tuple[int, int]:
    return new, other


def test_an_old_keyword_warns_and_is_passed_under_its_new_name():
    with pytest.warns(DeprecationWarning, match="'former' of function is now 'other'"):
        assert function(1, former=2) == (1, 2)
    with pytest.warns(DeprecationWarning, match="'old' of function is now 'new'"):
        assert function(old=3) == (3, 0)
    assert function(new=4, other=5) == (4, 5)


def test_an_argument_under_both_names_is_a_type_error():
    with pytest.raises(TypeError, match="'new' under its old name 'old'"):
        function(new=1, old=2)


@pytest.mark.parametrize(
    ("call", "old"),
    [(harvest, "batch_size"), (stream, "batch_size"), (provider_of, "read_size"), (CompiledReading, "batch_size")],
)
def test_pairs_per_forward_pass_are_still_taken_under_their_old_keywords(call, old: str):
    with pytest.warns(DeprecationWarning, match=f"{old!r} of .* is now 'forward_batch'"), pytest.raises(TypeError):
        call(**{old: 8})


def test_the_old_name_of_indices():
    with pytest.warns(DeprecationWarning, match=r"Pairs\.indices"):
        assert Pairs(["a", "b"], None, ["x", "y"]).places(["b"]) == {"b": 1}
