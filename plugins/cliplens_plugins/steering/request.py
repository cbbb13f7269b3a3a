"""Hold and check the options of one steering session."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplens.api import DTYPES
from cliplens.errors import InputError
from cliplens_plugins.steering.given import reference_of
from cliplens_plugins.steering.sources import MOST


@dataclass(frozen=True, kw_only=True)
class SteeringRequest:
    """The options of `cliplens steer`, checked against each other."""

    out: Path
    run: Path | None = None
    edit: tuple[str, ...] = ()
    edits: Path | None = None
    most: int = MOST
    """Maximum number of latents that the words of an edit resolve to."""
    doses: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0)
    reference: tuple[str, ...] = ()
    """References: one, or in a mix one for each sample."""
    mix: bool = False
    """Whether the reference is mixed in by modality class."""
    error_term: bool = True
    compare: tuple[str, ...] = ()
    """Further edits, each steered alone beside the edit."""
    positions: str = "all"
    """Positions that edits from text apply to."""
    prompts: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    pairs: int | None = None
    generator: str | None = None
    classes: tuple[str, ...] = ()
    pipeline: Path | None = None
    variant: str | None = None
    dtype: str = "float32"
    config: Path | None = None
    """Folder of configs for a single-file checkpoint."""
    lora: Path | None = None
    ip_adapter: Path | None = None
    ip_images: tuple[Path, ...] = ()
    mask: Path | None = None
    scheduler: str | None = None
    strength: float | None = None
    sae: Path | None = None
    site: str | None = None
    part: str | None = None
    window: tuple[float, float] | None = None
    steps: int = 30
    guidance: float | None = None
    negative: str | None = None
    size: tuple[int, int] | None = None
    seed: int = 0
    seeds: tuple[int, ...] = ()
    """Every sample is drawn with each of these; empty for `seed` alone."""
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
        if self.pipeline is not None and not (self.prompts or self.images or self.ip_images):
            raise InputError(
                expected="a prompt or an image",
                found="neither --prompt nor --image",
                fix="pass for example --prompt 'a ring', or --image FILE",
            )
        if self.pairs is not None and self.pairs < 1:
            raise InputError(expected="at least one pair to steer", found=f"--pairs {self.pairs}", fix="pass --pairs 4")
        given = {"--image": self.images, "--ip-image": self.ip_images, "--mask": (self.mask,) if self.mask else ()}
        for option, paths in given.items():
            for path in paths:
                if not path.is_file():
                    raise InputError(
                        expected="an image file",
                        found=f"no file {path}",
                        fix=f"pass {option} the path of an existing file",
                    )
        if self.strength is not None and not 0 < self.strength <= 1:
            raise InputError(
                expected="a strength above 0 and at most 1", found=f"{self.strength:g}", fix="give --strength 0.8"
            )
        if self.dtype not in DTYPES:
            raise InputError(
                expected=f"a dtype: {', '.join(DTYPES)}", found=repr(self.dtype), fix="give --dtype float16"
            )
        if self.classes and (self.pipeline is not None or self.generator not in (None, "none")):
            raise InputError(
                expected="CLIP itself to steer, since --classes is given",
                found="--pipeline" if self.pipeline is not None else f"--generator {self.generator}",
                fix="leave it out, or leave out --classes",
            )
        self._check_of_pipelines()
        self._check_mix()
        self._check_measure()
        self._check_references()
        self._check_doses()
        self._check_repeats()

    def _check_doses(self) -> None:
        if not any(self.doses):
            raise InputError(
                expected="a dose that edits",
                found="dose 0 alone, at which nothing is edited",
                fix="pass for example --dose 0,1",
            )

    def _check_repeats(self) -> None:
        """Refuse a dose, a seed or a sample that is given twice, which would count as more than there is."""
        kinds = (self.prompts, self.images, self.ip_images, self.reference)
        count = max(map(len, kinds))
        samples = [tuple(str(given[n % len(given)]) for given in kinds if given) for n in range(count)]
        each: dict[str, Sequence[Any]] = {
            "doses": self.doses,
            "seeds": self.seeds,
            "samples": [", ".join(sample) for sample in samples],
        }
        for name, values in each.items():
            again = next((v for n, v in enumerate(values) if v in values[:n]), None)
            if again is not None:
                raise InputError(
                    expected=f"{name} that differ",
                    found=f"{repr(again) if isinstance(again, str) else format(again, 'g')} twice",
                    fix="leave one of them out",
                )

    def _check_references(self) -> None:
        """Check that every reference can be opened, and that there is one unless they are mixed in."""
        for given in self.reference:
            reference_of(given)
        if len(self.reference) > 1 and not self.mix:
            raise InputError(
                expected="one --reference for an edit with ~",
                found=f"{len(self.reference)}",
                fix="leave out all but one, or pass --mix, which takes one for each sample",
            )

    def _check_mix(self) -> None:
        """Check that --mix has a run and a reference, and no edit beside it."""
        if not self.mix:
            return
        if self.run is None or not self.reference:
            raise InputError(
                expected="a run folder, whose latents have classes, and --reference, since --mix is given",
                found="no run folder" if self.run is None else "no --reference",
                fix="pass for example cliplens steer RUN --pipeline sd/ --prompt 'a ring' --reference x.png --mix",
            )
        if not (self.prompts or self.images or self.ip_images):
            raise InputError(
                expected="a prompt or an image to mix the reference into",
                found="neither --prompt nor --image",
                fix="pass for example --prompt 'a ring'",
            )
        given: dict[str, object] = {"--edit": self.edit, "--edits": self.edits, "--compare": self.compare}
        given |= {"--control": self.control, "--sae": self.sae, "--measure": self.measure}
        found = [option for option, value in given.items() if value not in (None, (), False)]
        if found:
            raise InputError(
                expected="--mix alone, which makes an edit for each class and a control of equal size",
                found=f"{', '.join(found)} beside it",
                fix=f"leave out --mix or {', '.join(found)}",
            )

    def _check_measure(self) -> None:
        """Check that --measure and --judge have what they need."""
        if self.pipeline is not None and self.measure is not None and self.judge is None:
            raise InputError(
                expected="--judge, to compare pictures with the phrase of --measure",
                found=f"--measure {self.measure!r} alone",
                fix="pass for example --judge 'open_clip:ViT-B-32|laion2b_s34b_b79k'",
            )
        if self.judge is not None and self.measure is None and not self.mix:
            raise InputError(
                expected="--measure with a phrase, to which --judge compares the pictures",
                found="--judge alone",
                fix="pass for example --measure 'a blue ring', or leave out --judge",
            )

    def check_without_pictures(self) -> None:
        """Refuse --mix and --measure where no pictures are drawn.

        Raises:
            InputError: one of them is given.
        """
        if not self.mix and self.measure is None:
            return
        option, of_clip = ("--mix" if self.mix else "--measure"), self.pipeline is None
        instead = " and pass --classes 'cat,dog'" if of_clip and not self.mix else ""
        raise InputError(
            expected=f"something that draws pictures, since {option} is given",
            found="CLIP itself" if of_clip else "a model that answers",
            fix=f"pass --pipeline with a diffusers pipeline, or leave out {option}{instead}",
        )

    def _check_of_pipelines(self) -> None:
        """Refuse options of pipelines where there is none."""
        if self.pipeline is not None:
            if self.ip_adapter is not None and not (self.ip_images or self.images):
                raise InputError(
                    expected="a picture for the IP-Adapter", found="no --ip-image", fix="pass --ip-image FILE"
                )
            return
        given = {
            "--config": self.config,
            "--lora": self.lora,
            "--ip-adapter": self.ip_adapter,
            "--ip-image": self.ip_images,
            "--mask": self.mask,
            "--scheduler": self.scheduler,
            "--strength": self.strength,
            "--guidance": self.guidance,
            "--negative": self.negative,
            "--size": self.size,
            "--variant": self.variant,
            "--window": self.window,
            "--part": self.part,
        }
        found = [option for option, value in given.items() if value not in (None, ())]
        if found:
            raise InputError(
                expected="--pipeline, to which these options belong",
                found=f"{', '.join(found)} without it",
                fix="give --pipeline FOLDER, or leave them out",
            )

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to draw with."""
        return self.seeds or (self.seed,)

    @property
    def ordered_doses(self) -> tuple[float, ...]:
        """The doses in order, with dose 0 added for comparison if it is missing."""
        return self.doses if 0.0 in self.doses else (0.0, *self.doses)
