"""Steerings that are derived from another steering."""

from dataclasses import dataclass, replace

from cliplens.edits import Steering


@dataclass(frozen=True, eq=False)
class DerivedSteering(Steering):
    """A steering that changes nothing where another one changes nothing, and has its doses."""

    of: Steering

    @property
    def idle(self) -> bool:
        """Return whether the other steering changes nothing."""
        return self.of.idle

    def at_dose(self, dose: float) -> "DerivedSteering":
        """Return the same at another dose of the other steering.

        Raises:
            TypeError: the other steering has no doses.
        """
        if not hasattr(self.of, "at_dose"):
            raise TypeError(f"{type(self.of).__name__} has no doses")
        return replace(self, of=self.of.at_dose(dose))
