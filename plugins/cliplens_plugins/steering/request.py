"""Hold and check the options of one steering session."""

from dataclasses import dataclass
from pathlib import Path

from cliplens.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SteeringRequest:
    """The options of `cliplens steer`, checked against each other."""

    out: Path
    run: Path | None = None
    edit: tuple[str, ...] = ()
    edits: Path | None = None
    doses: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0)
    reference: str | None = None
    error_term: bool = True
    prompts: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    pairs: int | None = None
    generator: str | None = None
    classes: tuple[str, ...] = ()
    pipeline: Path | None = None
    variant: str | None = None
    dtype: str = "float32"
    lora: Path | None = None
    sae: Path | None = None
    site: str | None = None
    part: str | None = None
    window: tuple[float, float] | None = None
    steps: int = 30
    guidance: float | None = None
    negative: str | None = None
    size: tuple[int, int] | None = None
    seed: int = 0
    measure: str | None = None
    control: bool = False
    judge: str | None = None

    def __post_init__(self) -> None:
        if self.run is None and (self.pipeline is None or self.sae is None):
            raise InputError(
                expected="a run folder, or --pipeline together with --sae",
                found="neither" if self.pipeline is None else "--pipeline alone",
                fix="pass the folder of an earlier run, or --pipeline and --sae",
            )
        if not self.edit and self.edits is None and self.run is None:
            raise InputError(
                expected="an edit", found="neither --edit nor --edits", fix="pass for example --edit '17=+4'"
            )
        if self.pipeline is not None and not self.prompts and not self.images:
            raise InputError(
                expected="a prompt or an image",
                found="neither --prompt nor --image",
                fix="pass for example --prompt 'a ring', or --image FILE",
            )
        if self.pipeline is not None and self.measure is not None and self.judge is None:
            raise InputError(
                expected="--judge, to compare pictures with the phrase of --measure",
                found=f"--measure {self.measure!r} alone",
                fix="pass for example --judge 'open_clip:ViT-B-32|laion2b_s34b_b79k'",
            )
        if self.pairs is not None and self.pairs < 1:
            raise InputError(expected="at least one pair to steer", found=f"--pairs {self.pairs}", fix="pass --pairs 4")
        for path in self.images:
            if not path.is_file():
                raise InputError(
                    expected="an image file", found=f"no file {path}", fix="pass --image the path of an existing file"
                )

    @property
    def ordered_doses(self) -> tuple[float, ...]:
        """The doses in order, with dose 0 added for comparison if it is missing."""
        return self.doses if 0.0 in self.doses else (0.0, *self.doses)
