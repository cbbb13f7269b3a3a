"""A device that is unknown or absent is refused in words, whatever the build of PyTorch."""

import pytest
import torch

from cliplens.errors import InputError
from cliplens.models import pick_device


def test_a_device_of_this_machine_is_taken() -> None:
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["", "gpu", "cpu:x"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="a device as PyTorch names it"):
        pick_device(name)


def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("cuda") == torch.device("cuda")
    for name in ("cuda:1", "mps"):
        with pytest.raises(InputError, match="a device of this machine"):
            pick_device(name)
