"""Methods of a pipeline replaced for a while, and random numbers that two calls share."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def noise_for(embeds: Float[Tensor, "..."], given: dict[str, Any]) -> Tensor:
    """Draw the noise that the pipeline would draw, once for steered and unsteered conditioning."""
    from diffusers.utils.torch_utils import randn_tensor

    if given.get("noise") is not None:
        return given["noise"]
    generator = given.get("generator")
    drawn: Tensor = randn_tensor(embeds.shape, generator=generator, device=embeds.device, dtype=embeds.dtype)
    return drawn


@contextmanager
def generator_rewound(generator: Any) -> Iterator[None]:
    """Restore the state of random number generators, so that a second encoding draws the same noise."""
    given = [g for g in (generator if isinstance(generator, list) else [generator]) if g is not None]
    states = [g.get_state() for g in given]
    with torch.random.fork_rng(devices=[]):
        yield
    for g, state in zip(given, states, strict=True):
        g.set_state(state)


def method_replaced(pipeline: Any, name: str, method: Callable[..., Any], stack: ExitStack) -> None:
    """Wrap a method of this pipeline object until the stack closes."""
    original = getattr(pipeline, name)
    before = pipeline.__dict__.get(name)

    def put_back() -> None:
        if before is None:
            pipeline.__dict__.pop(name, None)
        else:
            pipeline.__dict__[name] = before

    def called(*args: Any, **kwargs: Any) -> Any:
        return method(original, *args, **kwargs)

    pipeline.__dict__[name] = called
    called.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    stack.callback(put_back)
