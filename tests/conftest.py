"""One thread and no network on any machine: torch's spinning thread pools make tiny tensors many times slower."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jaxtyping
import pytest
from hypothesis import settings

from support import shape_checks

if TYPE_CHECKING:
    from cliplens import HookedCLIP

shape_checks.use()

# A loaded machine must not fail a property: pytest-timeout bounds each test.
settings.register_profile("cliplens", deadline=None)
settings.load_profile("cliplens")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """torch.compile cannot look through the shape checks the tests add."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def clip() -> "HookedCLIP":
    """Return a tiny open_clip model with hooks on both towers, preprocess and tokenizer."""
    import cliplens
    from support.tiny import TinyTokenizer, tiny_model, tiny_preprocess

    return cliplens.wrap(tiny_model(), preprocess=tiny_preprocess, tokenizer=TinyTokenizer())
