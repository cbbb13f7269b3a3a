import pytest

from cliplens import errors
from cliplens.deprecation import deprecated_names

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
