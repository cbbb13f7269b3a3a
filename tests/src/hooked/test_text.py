import torch

from cliplens.hooked.text import TokenizerShim


def test_ids_are_shown_where_a_tokenizer_cannot_decode() -> None:
    shim = TokenizerShim(lambda captions: torch.zeros(len(captions), 4, dtype=torch.long))
    assert shim.decode([3, 17]) == "<3><17>"
    assert shim.decode(torch.tensor(5)) == "<5>"
