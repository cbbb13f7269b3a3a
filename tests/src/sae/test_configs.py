import pytest

from cliplens.errors import InputError, UnknownNameError
from cliplens.sae import architecture_names, dictionary_config

STOCK = {
    "standard",
    "gated",
    "topk",
    "abstopk",
    "batchtopk",
    "jumprelu",
    "matryoshka_batchtopk",
    "matching_pursuit",
}


def test_all_eight_architectures_of_saelens_can_be_asked_for() -> None:
    assert set(architecture_names()) >= STOCK
    for architecture in STOCK:
        for d_in in (4, 64, 768):
            config = dictionary_config(architecture, d_in)
            assert config.architecture() == architecture
            assert (config.d_in, config.d_sae) == (d_in, 4 * d_in)


def test_k_reaches_every_architecture_that_has_such_a_number() -> None:
    assert dictionary_config("topk", 64, 256, k=5).k == 5
    assert dictionary_config("jumprelu", 64, 256, k=5).target_l0 == 5.0
    assert dictionary_config("matching_pursuit", 64, 256, k=5).max_iterations == 5
    assert dictionary_config("batchtopk", 64).k == 8


def test_options_are_fields_of_saelens_config_and_win() -> None:
    assert dictionary_config("standard", 64, l1_coefficient=0.25).l1_coefficient == 0.25
    assert dictionary_config("matryoshka_batchtopk", 64, matryoshka_widths=[10, 256]).matryoshka_widths == [10, 256]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: dictionary_config("batch_topk", 64), "found 'batch_topk'. Fix: use one of the nearest: .*'batchtopk'"),
        (lambda: dictionary_config("topk", 64, kay=3), "field of TopKTrainingSAEConfig.*found 'kay'"),
        (lambda: dictionary_config("topk", 64, l1_coefficent=3), "found 'l1_coefficent'"),
    ],
)
def test_unknown_names_list_the_nearest(ask, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        ask()


@pytest.mark.parametrize(("d_in", "d_sae", "k"), [(0, 4, 1), (4, 0, 1), (4, 16, 17), (4, 16, 0)])
def test_sizes_that_cannot_work_are_refused(d_in: int, d_sae: int, k: int) -> None:
    with pytest.raises(InputError, match=f"found d_sae={d_sae}, k={k}" if d_in > 0 else f"found d_in={d_in}"):
        dictionary_config("topk", d_in, d_sae, k=k)
