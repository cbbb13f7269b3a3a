"""A run and pipelines of one tiny CLIP, made once for the tests of mixing."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on both embeddings of a tiny CLIP, and pipelines that use its encoders."""
    pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")
    from support import mixing_place

    path = tmp_path_factory.mktemp("mixing")
    mixing_place.make(path)
    return path
