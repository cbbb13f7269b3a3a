"""Progress bars that nest, in terminals and notebooks: the steps of a run, the work of a step, its batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm
from tqdm.notebook import tqdm as notebook_tqdm

DELAY = 2
"""Seconds after which a bar shows: short work has none."""
_UNWATCHED = False if issubclass(tqdm, notebook_tqdm) else None
"""Whether a bar is hidden. None: tqdm asks whether the file that it writes to is a terminal."""


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar of tqdm that appears after two seconds. One opened inside another stands below it, and goes when done.

    It shows in terminals and notebooks; in a log or a pipe, nothing is written. Arguments are those of tqdm, whose bars
    (such as those of SAELens) it nests with.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("delay", DELAY)
        if not options.get("disable"):
            options["disable"] = _UNWATCHED
        options.setdefault("leave", all(bar is self for bar in tqdm._instances))  # type: ignore[attr-defined]
        super().__init__(*args, **options)


@contextmanager
def steps_bar(title: str, names: Sequence[str], *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Show which of some steps is being done, at once. Where no one watches (a log, a pipe), nothing is shown.

    Args:
        title: what the steps belong to, such as the name of a run folder.
        names: the names of the steps, in order.
        shown: whether this process shows the bar.

    Yields:
        A function to call with the name of each step as it begins.
    """
    shape = "{desc}: step {n_fmt} of {total_fmt} |{bar}| {elapsed}"
    with Bar(total=len(names), desc=title, bar_format=shape, delay=0, disable=not shown) as bar:

        def begin(name: str) -> None:
            bar.n = list(names).index(name) + 1
            bar.set_description_str(f"{title}: {name}")

        yield begin
