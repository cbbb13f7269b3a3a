"""Convert torch and numpy arrays to float64 for computing, and back to the kind that was passed."""

from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from cliplens.errors import InputError, NonFiniteError

_MANY_ROWS = 4096
"""From more rows than this on, `nearest_rows` chooses candidates in float32."""
_SPARE = 16
"""Number of additional candidates, so that rounding to float32 loses no neighbour."""

Array = TypeVar("Array", np.ndarray, Tensor)


def as_double(
    values: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."], name: str, axes: tuple[str, ...]
) -> Float[Tensor, "..."]:
    """Return the values as a float64 tensor on their device.

    Args:
        values: torch or numpy.
        name: the name of the values, for the error messages.
        axes: the name of each axis, for example ("pair", "latent").

    Raises:
        InputError: the values have another number of axes.
        NonFiniteError: the values hold nan or inf.

    >>> as_double(np.array([1, 2]), "scores", ("latent",))
    tensor([1., 2.], dtype=torch.float64)
    """
    tensor = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if tensor.ndim != len(axes):
        raise InputError(
            expected=f"{name} of shape [{', '.join(axes)}]",
            found=f"shape {tuple(tensor.shape)}",
            fix=f"pass an array with one row per {axes[0]}",
        )
    tensor = tensor.to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(
            expected=f"finite numbers as {name}",
            found="nan or inf",
            fix="remove the samples with nan or inf",
        )
    return tensor


def check_embeddings(found: Shaped[Tensor, "..."], name: str) -> None:
    """Raise NonFiniteError if embeddings of a model hold nan or inf: a comparison with them has no answer.

    >>> check_embeddings(torch.ones(2, 3), "embeddings of the pictures")
    """
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError(
            expected=f"finite {name}",
            found="nan or inf",
            fix="check the weights of the model, or load it in float32 (half precision overflows)",
        )


def like(result: Shaped[Tensor, "..."], given: Array) -> Array:
    """Return the result as a tensor if `given` is a tensor, else as a numpy array."""
    return result if isinstance(given, Tensor) else result.cpu().numpy()


def unit_rows(embeddings: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    """Return the rows scaled to norm 1, in float64.

    Raises:
        InputError: a row is zero.

    >>> unit_rows(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    rows = embeddings.to(torch.float64)
    norms = rows.norm(dim=1, keepdim=True)
    if bool((norms == 0).any()):
        row = int((norms[:, 0] == 0).nonzero()[0, 0])
        raise InputError(expected="embeddings that are not zero", found=f"zeros in row {row}", fix="remove that sample")
    return rows / norms


def check_same_rows(a: Tensor, b: Tensor, name: str) -> None:
    """Raise an error unless both arrays have the same number of rows.

    Raises:
        InputError: the numbers of rows differ.
    """
    if len(a) != len(b):
        raise InputError(
            expected=f"{name} for the same samples",
            found=f"{len(a)} and {len(b)} rows",
            fix="pass arrays whose row i belongs to sample i",
        )


def nearest_rows(
    rows: Float[Tensor, "row d"],
    count: int,
    *,
    among: Int64[np.ndarray, " candidate"] | None = None,
    block: int = 1024,
) -> tuple[Int64[np.ndarray, "row near"], Float[np.ndarray, "row near"]]:
    """Return the other rows with the highest cosine with each row, nearest first, and the cosines, in [-1, 1].

    If there are fewer than `count` other rows, there are fewer columns. Only a part of the matrix of cosines is in
    memory at a time. Of many rows, the best candidates are chosen in float32, a few more than asked for, and ordered
    in float64; the rows are in memory once in float32, and never all in float64.

    Args:
        rows: vectors.
        count: number of rows to return for each row.
        among: indices of the rows that may be returned; by default all.
        block: number of rows handled at a time.

    Raises:
        NonFiniteError: a row holds nan or inf.

    >>> nearest_rows(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 1)[0].ravel()
    array([1, 0, 1])
    """
    rows = rows.detach()
    allowed = torch.arange(len(rows), device=rows.device)
    if among is not None:
        allowed = torch.from_numpy(np.unique(among)).to(rows.device)
    count = max(0, min(count, len(allowed) - 1))
    if len(allowed) <= _MANY_ROWS:
        values, places = _largest_products(_unit(rows), allowed, count, block)
        return places.cpu().numpy(), values.clamp_(-1, 1).cpu().numpy()
    rough = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    for some, into in zip(rows.split(block), rough.split(block), strict=True):
        into.copy_(_unit(some))
    kept = min(count + _SPARE, len(allowed) - 1)
    places = _likely_of_all(rough, kept) if among is None else _largest_products(rough, allowed, kept, block)[1]
    del rough
    return _nearest_of(rows, places, count)


def _unit(rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    return torch.nn.functional.normalize(as_double(rows, "rows", ("row", "d")), dim=1)


def _nearest_of(
    rows: Float[Tensor, "row d"], places: Int64[Tensor, "row kept"], count: int, block: int = 128
) -> tuple[Int64[np.ndarray, "row near"], Float[np.ndarray, "row near"]]:
    """Return the `count` nearest of the candidates of each row, and the cosines, computed in float64."""
    indices, cosines = np.empty((len(rows), count), dtype=np.int64), np.empty((len(rows), count))
    for start in range(0, len(rows), block):
        here = slice(start, min(start + block, len(rows)))
        candidates = _unit(rows[places[here].flatten()]).unflatten(0, places[here].shape)
        exact, order = (candidates @ _unit(rows[here])[:, :, None])[..., 0].sort(dim=1, descending=True, stable=True)
        indices[here] = places[here].gather(1, order)[:, :count].cpu().numpy()
        cosines[here] = exact[:, :count].clamp(-1, 1).cpu().numpy()
    return indices, cosines


def _largest_products(
    unit: Float[Tensor, "row d"], allowed: Int64[Tensor, " candidate"], kept: int, block: int
) -> tuple[Float[Tensor, "row kept"], Int64[Tensor, "row kept"]]:
    """Return the `kept` largest products of each row with the other allowed rows, and the indices of these rows."""
    column = torch.full((len(unit),), -1, device=unit.device)
    column[allowed] = torch.arange(len(allowed), device=unit.device)
    others = unit[allowed].T.contiguous()
    values, places = [], []
    for start in range(0, len(unit), block):
        here = slice(start, min(start + block, len(unit)))
        products = unit[here] @ others
        own = column[here]
        inside = torch.nonzero(own >= 0)[:, 0]
        products[inside, own[inside]] = -torch.inf
        best = products.topk(kept, dim=1)
        values.append(best.values)
        places.append(allowed[best.indices])
    return torch.cat(values), torch.cat(places)


def _likely_of_all(unit: Float[Tensor, "row d"], kept: int, tile: int = 2048) -> Int64[Tensor, "row kept"]:
    """Return the indices of the `kept` rows with the largest products with each row; every product is computed once.

    A tile of products serves its rows and its columns.
    """
    n = len(unit)
    values = unit.new_full((n, kept), -torch.inf)
    places = torch.zeros((n, kept), dtype=torch.int64, device=unit.device)

    def take(here: slice, products: Tensor, first: int) -> None:
        best = products.topk(min(kept, products.shape[1]), dim=1, sorted=False)
        both = torch.cat([values[here], best.values], 1)
        chosen = both.topk(kept, dim=1, sorted=False)
        values[here] = chosen.values
        places[here] = torch.cat([places[here], best.indices + first], 1).gather(1, chosen.indices)

    for left in range(0, n, tile):
        for right in range(left, n, tile):
            products = unit[left : left + tile] @ unit[right : right + tile].T
            if left == right:
                products.fill_diagonal_(-torch.inf)
            else:
                take(slice(right, right + tile), products.T.contiguous(), left)
            take(slice(left, left + tile), products, right)
    return places
