"""Hook points under the names of the joint model."""

import re
from typing import Any

from transformer_lens.hook_points import HookPoint

_LAYER = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


class HookView:
    """A hook point under its joint name, as it is passed to hooks that were added at the joint model."""

    def __init__(self, name: str, point: HookPoint) -> None:
        self.name = name
        self._point = point

    def layer(self) -> int:
        """Return the index of the block that contains the hook point.

        Raises:
            ValueError: the hook point is outside the blocks.
        """
        found = _LAYER.search(self.name)
        if found is None:
            raise ValueError(f"{self.name} is not in a block")
        return int(found.group(1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._point, name)
