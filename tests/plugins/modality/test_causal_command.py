"""`cliplens causal`: the latents it measures by default, its rows, and how its table explains the sign."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cliplens_plugins.modality import causal_splice
from cliplens_plugins.modality.causal import CausalEffect
from cliplens_plugins.modality.causal_splice import LatentEffect
from cliplens_plugins.modality.command import USUAL, _tell, causal_rows

NAN = float("nan")
EFFECT = CausalEffect(-0.3, 0.1, -0.2, {"image": (0.0, 0.1), "text": (0.0, 0.2), "both": (0.05, 0.4)})


def run_of(**table: Any) -> Any:
    """Return what `causal_rows` reads of a run."""
    return SimpleNamespace(
        table=table, clip="clip", dictionary="dictionary", inputs=lambda n: (f"{n} images", f"{n} texts")
    )


def measured(run: Any, latents: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, Any]], Any]:
    """Return the rows of a run, and what the ablation was asked for."""
    asked: list[Any] = []

    def effects(*given: Any, **options: Any) -> list[LatentEffect]:
        asked.append((given, options))
        return [LatentEffect(k, EFFECT, None) for k in given[4]]

    monkeypatch.setattr(causal_splice, "causal_effects", effects)
    return causal_rows(run, latents, 7, 3), asked[0]


def test_by_default_those_that_fire_most_over_both_modalities_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    share = np.array([0.1, NAN, 0.5, 0.0, 0.2]), np.array([0.3, 0.2, NAN, 0.05, 0.35])
    run = run_of(fire_image=share[0], fire_text=share[1], mds=np.linspace(0, 1, 5))
    rows, (given, options) = measured(run, None, monkeypatch)
    assert given == ("clip", "7 images", "7 texts", "dictionary", [4, 2, 0, 1, 3])
    assert options == {"n_random": 3}
    assert [row["latent"] for row in rows] == [4, 2, 0, 1, 3]
    many = run_of(fire_image=np.arange(USUAL + 9.0), fire_text=np.zeros(USUAL + 9), mds=np.zeros(USUAL + 9))
    assert len(measured(many, None, monkeypatch)[0]) == USUAL


def test_a_row_holds_effects_scores_and_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"mds": np.array([0.2, 0.9]), "name": np.array(["a", "b"], dtype=object)}
    (row,), _ = measured(run_of(**table), [1], monkeypatch)
    assert row == {
        "latent": 1,
        "mds": 0.9,
        "causal": pytest.approx(0.75),
        "image": -0.3,
        "text": 0.1,
        "both": -0.2,
        "random": 0.05,
        "spread": 0.4,
        "name": "b",
    }
    assert measured(run_of(mds=table["mds"]), [0], monkeypatch)[0][0]["name"] == ""


def test_the_table_explains_its_sign(capsys: pytest.CaptureFixture[str]) -> None:
    _tell([{"latent": 3, "causal": 0.5, "image": -0.1, "text": 0.2, "both": 0.0, "random": 0.0, "spread": 0.1}])
    said = " ".join(capsys.readouterr().out.split())
    assert "Below 0: matching gets worse without the latent, so the latent helps." in said
    assert all(f"{column}" in said for column in ("causal:", "image, text, both:", "random, spread:"))
    assert said.startswith("latent causal image text both random spread 3 0.5000 -0.1000 0.2000 0.0000 0.0000 0.1000")
    _tell([])
    assert " ".join(capsys.readouterr().out.split()).startswith("image, text, both:")
