"""Old names of the training classes stay importable, with a warning."""

import importlib

import pytest

import cliplens.sae
from cliplens.sae import architecture_names
from cliplens.sae.moved import _PUBLIC


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in _PUBLIC.items() for n in names])
def test_old_module_names_forward_with_a_warning(module: str, name: str) -> None:
    old = importlib.import_module(f"cliplens.sae.{module}")
    new = importlib.import_module(f"cliplens.sae.architectures.{module}")
    with pytest.warns(DeprecationWarning, match=f"is now cliplens.sae.architectures.{module}.{name}"):
        assert getattr(old, name) is getattr(new, name)


def test_an_unknown_name_of_an_old_module_is_an_attribute_error() -> None:
    old = importlib.import_module("cliplens.sae.two_decoders")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        old.nothing  # noqa: B018


def test_architectures_can_still_be_called() -> None:
    with pytest.warns(DeprecationWarning, match="architecture_names"):
        assert cliplens.sae.architectures() == architecture_names()
