"""The table of `cliplens causal` says how to read its sign."""

import pytest

from cliplens_plugins.modality.command import _tell


def test_the_table_explains_its_sign(capsys: pytest.CaptureFixture[str]) -> None:
    _tell([{"latent": 3, "causal": 0.5, "image": -0.1, "text": 0.2, "both": 0.0, "random": 0.0, "spread": 0.1}])
    said = " ".join(capsys.readouterr().out.split())
    assert "Below 0: matching gets worse without the latent, so the latent helps." in said
    assert all(f"{column}" in said for column in ("causal:", "image, text, both:", "random, spread:"))
