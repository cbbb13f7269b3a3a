"""Methods against bias on planted embeddings: what they remove, what they keep, and what they are compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cliplens.errors import InputError, MissingExtraError
from cliplens.run import OpenedRun
from cliplens.studies import ScoredClasses, linear_probe, mlp_probe, probe_auc, read_studies
from cliplens_plugins.bias import (
    BiasData,
    Prompts,
    Utility,
    attribute_latents,
    dictionary_methods,
    embedding_methods,
    leace_method,
    measure,
    sem,
)
from cliplens_plugins.bias.command import app
from cliplens_plugins.bias.methods import dense_codes
from cliplens_plugins.bias.projections import off_directions, orth_cali, orth_proj
from support.study_runs import study_run
from support.tiny_dictionaries import tiny_dictionary

D = 16
SITES = ("vision.hook_embedding", "text.hook_embedding")


def unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.double(), dim=-1)


def planted(n: int = 240, seed: int = 0) -> BiasData:
    """Embeddings in which axis 0 is the target, axis 1 the group, the rest noise; tied in the training half."""
    g = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    train = np.arange(n) < n // 2
    group = np.where(train & (rng.random(n) < 0.8), target, rng.integers(0, 2, n))
    signs = torch.as_tensor(np.stack([target, group], 1) * 2.0 - 1)
    image = 0.25 * torch.randn(n, D, generator=g)
    image[:, :2] += signs * torch.tensor([0.5, 1.0])

    def said(axis: int) -> torch.Tensor:
        rows = 0.1 * torch.randn(2, 4, D, generator=g)
        rows[0, :, axis] -= 1
        rows[1, :, axis] += 1
        return unit(rows)

    prompts = Prompts(said(0), said(1), unit(torch.randn(30, D, generator=g)))
    utility = Utility(unit(image[:40]), unit(image[:40] + 0.05 * torch.randn(40, D, generator=g)))
    return BiasData(unit(image), group, target, train, ("land", "water"), ("bird", "fish"), prompts, utility)


def test_leace_leaves_little_to_a_linear_probe() -> None:
    pytest.importorskip("concept_erasure")
    data = planted(600)
    none, erased = measure(data, [embedding_methods(data)[0], leace_method(data)], draws=20)
    assert none.figures["leakage, linear"][0] > 0.95
    assert erased.figures["leakage, linear"][0] < 0.65


def test_leace_is_missing_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "concept_erasure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cliplens\[bias\]'"):
        leace_method(planted(40))


def test_projections() -> None:
    rows = unit(torch.randn(5, D, generator=torch.Generator().manual_seed(1)))
    p = orth_proj(rows[:2])
    assert torch.allclose(p @ p, p)
    assert (p @ rows[:2].T).abs().max() < 1e-9
    assert torch.linalg.matrix_rank(p) == D - 2
    assert torch.linalg.matrix_rank(orth_proj(rows[[0, 0]])) == D - 1  # equal prompts span one direction
    half = off_directions(rows[:1], 0.5) @ rows[0]
    assert torch.allclose(half, 0.5 * rows[0])
    pairs = torch.stack([rows[:2], rows[2:4]], 1)
    apart = rows[0] - rows[2]
    cali = orth_cali(rows[4:], pairs)
    assert (cali @ apart).norm() < 0.05 * apart.norm()
    assert torch.allclose(orth_cali(rows[4:], pairs, strength=0.0), orth_proj(rows[4:]))


def test_probes_read_what_is_there_and_no_more() -> None:
    g = torch.Generator().manual_seed(2)
    rows = torch.randn(400, 6, generator=g).double()
    labels = (rows[:, 0] > 0).long()
    ring = ((rows[:, 1] * rows[:, 2]) > 0).long()
    half = slice(0, 200), slice(200, 400)
    held = labels[half[1]].numpy()
    assert probe_auc(linear_probe(rows[half[0]], labels[half[0]])(rows[half[1]]), held) > 0.97
    curved = ring[half[1]].numpy()
    assert probe_auc(linear_probe(rows[half[0]], ring[half[0]])(rows[half[1]]), curved) < 0.65
    assert probe_auc(mlp_probe(rows[half[0]], ring[half[0]])(rows[half[1]]), curved) > 0.8
    three = torch.bucketize(rows[:, 0].contiguous(), torch.tensor([-0.4, 0.4], dtype=torch.float64))
    assert probe_auc(linear_probe(rows[half[0]], three[half[0]])(rows[half[1]]), three[half[1]].numpy()) > 0.9


def axis_dictionary() -> tuple[object, ScoredClasses]:
    """A dictionary with a latent per half axis: latent 2i fires along +axis i, 2i + 1 along -axis i."""
    dictionary = tiny_dictionary(D, 2 * D, sites=SITES)
    eye = torch.eye(D)
    rows = torch.stack([eye, -eye], 1).reshape(2 * D, D)
    sae = dictionary.sae
    sae.W_dec[:], sae.W_enc[:] = rows, rows.T
    sae.b_enc.zero_()
    sae.b_dec.zero_()
    classes = np.where(np.arange(2 * D) < 4, "CrossD", "ImgD")
    return dictionary, ScoredClasses(classes, 0.1 + np.arange(2 * D) * 7 % 32 / 40)


def test_latents_that_carry_the_group_are_found_and_their_ablation_removes_it() -> None:
    data = planted(400)
    dictionary, scored = axis_dictionary()
    codes = dense_codes(dictionary, data.image[torch.as_tensor(data.train)], "image")  # type: ignore[arg-type]
    assert set(attribute_latents(codes, data.group[data.train], scored.alive, 2)) == {2, 3}
    methods = dictionary_methods(data, dictionary, scored, controls=2, top=2)  # type: ignore[arg-type]
    looked = ("ablate top 2", "ablate top 2 of CrossD", "ablate 2 random (1)", "ablate top 2 of ImgD", "S&P Top-K")
    chosen = [embedding_methods(data)[0], *(m for m in methods if m.name in looked)]
    assert len(chosen) == 6
    by_name = {m.method.name: m.figures for m in measure(data, chosen, draws=20)}
    none = by_name["none"]["leakage, linear"][0]
    assert by_name["ablate top 2"]["leakage, linear"][0] < none - 0.3
    assert by_name["ablate top 2 of CrossD"]["leakage, linear"][0] < none - 0.3
    for name in ("ablate 2 random (1)", "ablate top 2 of ImgD"):
        assert by_name[name]["leakage, linear"][0] > none - 0.1
    assert by_name["S&P Top-K"]["leakage, linear"][0] < none - 0.3
    assert by_name["ablate top 2"]["trained worst group"][0] > by_name["none"]["trained worst group"][0]
    for figures in by_name.values():
        for name in ("zero-shot mean", "trained mean", "leakage, linear", "leakage, MLP"):
            value, low, high = figures[name]
            assert low - 1e-9 <= value <= high + 1e-9


def test_sem_keeps_the_prompt_where_nothing_is_neutral_about_it() -> None:
    """A latent that fires far above all neutral prompts and for no group has c = 1, b = 0: w = 4, or 1 for `i`."""
    dictionary, _ = axis_dictionary()
    data = planted(40)
    groups = torch.stack([-torch.eye(D)[1:2], torch.eye(D)[1:2]]).expand(2, 4, D).double()
    prompts = Prompts(data.prompts.target, groups, 1e-3 * torch.rand(50, D).double())
    row = torch.eye(D)[5:6].double()
    assert torch.allclose(sem(dictionary, prompts, "i")(row), row, atol=1e-2)  # type: ignore[arg-type]
    grown = sem(dictionary, prompts, "b")(row)  # type: ignore[arg-type]
    assert float(grown[0, 5]) == pytest.approx(4.0, abs=0.05)
    kept = sem(dictionary, prompts, "b", error_kept=True)(row)  # type: ignore[arg-type]
    assert float(kept[0, 5]) == pytest.approx(4.0, abs=0.05)


def test_sem_shrinks_what_groups_say() -> None:
    dictionary, _ = axis_dictionary()
    data = planted(40)
    group_row = data.prompts.group[1, :1]
    target_row = data.prompts.target[1, :1]
    change = sem(dictionary, data.prompts, "b")  # type: ignore[arg-type]
    both = unit(group_row + target_row)
    after = unit(change(both))
    assert float(after[0, 1]) < float(both[0, 1])


def test_a_group_or_target_without_images_is_refused() -> None:
    data = planted(40)
    with pytest.raises(InputError, match="none of 'fire'"):
        BiasData(data.image, data.group, data.target, data.train, ("a", "b", "fire"), ("c", "d"), data.prompts)
    with pytest.raises(InputError, match="1 value"):
        BiasData(data.image, data.group * 0, data.target, data.train, ("a",), ("c", "d"), data.prompts)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    return study_run(tmp_path_factory.mktemp("bias"))


def waterbirds(root: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(32):
        y, place, split = n % 2, (n // 2) % 2, 0 if n < 16 else 2
        name = f"{n}.png"
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
        rows.append(f"{n},{name},{y},{split},{place},/x")
    (root / "metadata.csv").write_text("\n".join(["img_id,img_filename,y,split,place,place_filename", *rows]))
    (root / "3.png").write_bytes(b"no picture")


@pytest.mark.slow
def test_the_command_reads_a_data_set_and_writes_a_section_of_the_report(run: OpenedRun, tmp_path: Path) -> None:
    waterbirds(tmp_path)
    options = ["--data", f"waterbirds:{tmp_path}", "--pairs", "24", "--top", "4", "--controls", "0", "--draws", "2"]
    done = CliRunner().invoke(app, [str(run.folder.path), *options])
    assert done.exit_code == 0, repr(done.exception)
    study = read_studies(run.folder)[0]
    assert "1 of 32 pictures could not be opened." in study.notes
    names = [row["method"] for row in study.tables["Fairness of the predictions"]]
    assert {"none", "Orth-Proj", "Orth-Cali", "SEM_b", "S&P Top-K", "ablate top 4 (never trained)"} <= set(names)
    assert 'id="study-bias"' in run.folder.report.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "nothing:/tmp"], "data set, as NAME:FOLDER"),
        (["--data", "celeba:/nowhere"], "name an existing folder"),
        (["--rate", "0.5", "--top", "0"], None),
    ],
)
def test_what_cannot_be_asked_is_refused(run: OpenedRun, options: list[str], says: str | None) -> None:
    done = CliRunner().invoke(app, [str(run.folder.path), "--pairs", "8", *options])
    assert done.exit_code != 0
    assert says is None or says in str(done.exception)
