"""A dictionary of two modalities: a SAELens SAE, the mean of each modality, and its origin."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sae_lens import SAE
from sae_lens.saes.sae import TrainingSAE
from torch import Tensor
from torch.nn import functional as F

from cliplens.errors import InputError, MismatchError, NearestNames
from cliplens.records import Batch, GroundTruth, PairedActs, PairedCodes, Provenance, SparseCodes
from cliplens.sae.compatibility import check_compatible
from cliplens.sae.encoding import encoded, make_sparse
from cliplens.sae.folder import Stored, load_folder, save_folder
from cliplens.sae.folding import NOT_AFFINE, Means, check_foldable, folded_for, mean_of, side_of
from cliplens.sae.inference import inference
from cliplens.sae.pretrained import read_pretrained
from cliplens.sites import MODALITIES, Modality, Site


class Dictionary(NearestNames):
    """A SAELens SAE that reads both modalities.

    `sae` reads activations minus the mean of their modality, or raw activations if `means` is None. Codes are those of
    the copies of `sae` with the mean folded in (`folded`): stock SAELens on raw activations computes the same codes bit
    for bit, and `sae` on centred activations computes them up to float32 rounding.

    Args:
        sae: the dictionary; a `TrainingSAE` is converted as SAELens converts it for inference.
        means: the mean of each modality that was subtracted in training.
        provenance: the model, sites and token choice it was trained on.

    Raises:
        InputError: `sae` is a transcoder, or means cannot be folded into it.
        MismatchError: a mean does not have the width `d_in`.
    """

    def __init__(
        self, sae: "SAE[Any] | TrainingSAE[Any]", means: Means | None = None, provenance: Provenance | None = None
    ) -> None:
        if isinstance(sae, TrainingSAE):
            sae = inference(sae)
        _refuse_transcoder(sae)
        self.sae = sae
        if means is not None:
            _check_means(means, sae.cfg.d_in)
            for modality in means:
                check_foldable(side_of(sae, modality))
        self.means = None if means is None else {m: means[m].detach().float().cpu() for m in MODALITIES if m in means}
        self.provenance = provenance

    def __repr__(self) -> str:
        means = "raw activations" if self.means is None else f"means of {' and '.join(self.means)} subtracted"
        source = self.provenance
        trained = "" if source is None else f", trained on {source.model.name}: {' + '.join(source.sites)}"
        return f"Dictionary({self.architecture}, {self.d_sae:,} latents, d_in {self.d_in}, {means}{trained})"

    @property
    def d_in(self) -> int:
        """Width of the activations it reads."""
        return int(self.sae.cfg.d_in)

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.sae.cfg.d_sae)

    @property
    def architecture(self) -> str:
        """SAELens' name of the architecture it is saved as."""
        return str(self.sae.cfg.architecture())

    @property
    def device(self) -> torch.device:
        """Device of its weights."""
        return torch.device(self.sae.W_dec.device)

    @property
    def decoder(self) -> Float[Tensor, "d_sae d_in"]:
        """Decoder rows; those for images if each modality has its own decoder (see `decoder_of`)."""
        return self.decoder_of("image")

    def decoder_of(self, modality: Modality) -> Float[Tensor, "d_sae d_in"]:
        """Return the decoder rows of a modality."""
        side = side_of(self.sae, modality)
        rows = side.W_dec.detach()
        if getattr(side.cfg, "rescale_acts_by_decoder_norm", False):
            rows = rows / rows.norm(dim=-1, keepdim=True)
        return rows

    def to(self, device: torch.device | str) -> "Dictionary":
        """Return the same dictionary on another device."""
        return Dictionary(copy.deepcopy(self.sae).to(torch.device(device)), self.means, self.provenance)

    def folded(self, modality: Modality) -> "SAE[Any]":
        """Return a SAELens SAE that reads raw activations of one modality; it shares its weights with `sae`."""
        return folded_for(self.sae, self.means, modality)

    def centre(self, acts: PairedActs) -> PairedActs:
        """Subtract the mean of each modality."""
        return PairedActs(acts.ids, *(self._centred(acts.of(m), m) for m in MODALITIES))

    @torch.no_grad()
    def encode(self, acts: PairedActs) -> PairedCodes:
        """Encode raw activations.

        Raises:
            MismatchError: the activations do not have the width `d_in`.
        """
        return PairedCodes(acts.ids, self._codes(acts.image, "image"), self._codes(acts.text, "text"))

    @torch.no_grad()
    def decode(self, codes: PairedCodes) -> PairedActs:
        """Reconstruct centred activations from codes.

        Raises:
            InputError: the dictionary normalises each row, so its scale cannot be computed from the code; use `batch`.
        """
        if self.sae.cfg.normalize_activations in NOT_AFFINE:
            raise InputError(
                expected="a dictionary whose reconstruction depends on the code only",
                found=f"normalize_activations={self.sae.cfg.normalize_activations!r}",
                fix="use Dictionary.batch(acts), which keeps each row's scale",
            )
        return PairedActs(codes.ids, *(self._decoded(codes.of(m), m) for m in MODALITIES))

    @torch.no_grad()
    def batch(
        self,
        acts: PairedActs,
        *,
        judged: Mapping[str, PairedActs] | None = None,
        truth: GroundTruth | None = None,
        targets: Mapping[str, Bool[np.ndarray, " row"]] | None = None,
    ) -> Batch:
        """Return the batch for metrics: centred activations, codes and reconstruction of raw activations.

        All tensors are moved to the device of the dictionary.
        """
        acts, judged = self._here(acts), {name: self._here(given) for name, given in (judged or {}).items()}
        centred, codes = self.centre(acts), self.encode(acts)
        if self.sae.cfg.normalize_activations in NOT_AFFINE:
            rebuilt = PairedActs(acts.ids, *(self._through(acts.of(m), m) for m in MODALITIES))
        else:
            rebuilt = self.decode(codes)
        return Batch(centred, codes, rebuilt, judged, truth, targets or {}, acts)

    def check(self, clip: Any, sites: Sequence[Site], *, token: str | None = None) -> None:
        """Check that the dictionary was trained on this model, these sites and this token choice.

        Args:
            clip: the model, with `.identity` and `.width(site)`.
            sites: sites to read.
            token: the token choice; None skips its check.

        Raises:
            MismatchError: one of them differs; the message names both values.
        """
        check_compatible(self.provenance, self.d_in, clip.identity, {site: clip.width(site) for site in sites}, token)

    def save(self, folder: Path | str) -> Path:
        """Write the dictionary, its means and a copy per modality that reads raw activations; return the folder.

        Raises:
            InputError: `folder` is a file, or contains other files than those of a dictionary.
        """
        return save_folder(Stored(self.sae, self.means, self.provenance), Path(folder))

    @classmethod
    def load(cls, folder: Path | str, *, device: torch.device | str = "cpu") -> "Dictionary":
        """Open a folder that `save` wrote, or any folder that `SAE.load_from_disk` opens (without means).

        Raises:
            InputError: the folder contains no dictionary.
            UnsafeFileError: it contains a pickle instead of tensors.
        """
        return cls(*load_folder(Path(folder), torch.device(device)))

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        sae_id: str | None = None,
        *,
        layout: str | None = None,
        hook_name: str | None = None,
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> "Dictionary":
        """Open a published dictionary by name. Only its files are downloaded.

        Args:
            name: `hf:owner/name` for a repository on the Hugging Face hub, the name of a release in SAELens' own list
                (`gpt2-small-res-jb`), or a local folder or file.
            sae_id: the dictionary within it: a folder or file of the repository, an id of the release. None takes the
                root, the `shared` folder of a cliplens export, or the only dictionary there is.
            layout: one of `cliplens.sae.layouts()`, if it cannot be recognised from the checkpoint.
            hook_name: the hook of the dictionary, if the checkpoint does not contain it.
            revision: branch, tag or commit of the repository.
            device: device of the weights.

        Raises:
            UnknownNameError: the release or dictionary is unknown; the message lists the nearest names.
            InputError: the hub cannot be reached, or it contains no dictionary of a known layout.
            UnsafeFileError: the file contains other objects than tensors.
        """
        found = read_pretrained(name, sae_id, layout=layout, hook_name=hook_name, revision=revision, device=device)
        return cls(*found)

    def _here(self, acts: PairedActs) -> PairedActs:
        image, text = (None if rows is None else rows.to(self.device) for rows in (acts.image, acts.text))
        return replace(acts, image=image, text=text)

    @cached_property
    def _readers(self) -> dict[Modality, "SAE[Any]"]:
        readers: dict[Modality, SAE[Any]] = {m: self.folded(m) for m in MODALITIES}
        for reader in readers.values():
            reader.turn_off_forward_pass_hook_z_reshaping()  # rows are flat here
            if self.sae.cfg.normalize_activations not in NOT_AFFINE:  # else `_through` decodes what it encodes
                make_sparse(reader)
        return readers

    def _centred(self, acts: Float[Tensor, "row d_in"] | None, modality: Modality) -> Float[Tensor, "row d_in"] | None:
        if acts is None:
            return None
        mean = mean_of(self.means, modality, self.d_in)
        acts = acts.float()
        return acts if mean is None else acts - mean.to(acts.device)

    def _codes(self, acts: Float[Tensor, "row d_in"] | None, modality: Modality) -> SparseCodes | None:
        if acts is None:
            return None
        self._check_width(acts)
        return encoded(self._readers[modality], acts)

    def _decoded(self, codes: SparseCodes | None, modality: Modality) -> Float[Tensor, "row d_in"] | None:
        if codes is None:
            return None
        decoder, bias = self._decoders[modality]
        counts = torch.bincount(codes.rows, minlength=codes.n_rows)
        starts = counts.cumsum(0) - counts
        values = codes.values.to(decoder.dtype)
        summed = F.embedding_bag(codes.latents, decoder, starts, mode="sum", per_sample_weights=values)
        return (summed + bias).float()

    @cached_property
    def _decoders(self) -> dict[Modality, tuple[Tensor, Tensor]]:
        return {m: (self.decoder_of(m), self._bias(m)) for m in MODALITIES}

    def _bias(self, modality: Modality) -> Float[Tensor, " d_in"]:
        """Return the bias of every reconstruction; SAELens' matching pursuit has none unless `b_dec` is applied to the
        input."""
        side = side_of(self.sae, modality)
        tied = self.architecture == "matching_pursuit" and not side.cfg.apply_b_dec_to_input
        return torch.zeros_like(side.b_dec) if tied else side.b_dec.detach()

    def _through(self, acts: Float[Tensor, "row d_in"] | None, modality: Modality) -> Float[Tensor, "row d_in"] | None:
        return None if acts is None else self._readers[modality](acts.to(self.device)).float()

    def _check_width(self, acts: Float[Tensor, "row width"]) -> None:
        if acts.shape[1] != self.d_in:
            raise MismatchError(
                expected=f"activations of the dictionary's width, d_in={self.d_in}",
                found=f"activations of width {acts.shape[1]}",
                fix="read the hook that the dictionary was trained on",
            )


def _refuse_transcoder(sae: "SAE[Any]") -> None:
    if str(sae.cfg.architecture()) == "temporal":
        raise InputError(
            expected="a dictionary whose codes depend on one activation at a time",
            found="a temporal SAE, which reads sequences",
            fix="use it with SAELens",
        )
    if hasattr(sae.cfg, "d_out"):
        raise InputError(
            expected="a dictionary that reconstructs its input",
            found=f"a transcoder, {type(sae).__name__}, from width {sae.cfg.d_in} to {sae.cfg.d_out}",
            fix="add it to a tower with add_sae",
        )


def _check_means(means: Means, d_in: int) -> None:
    for modality, mean in means.items():
        if mean.shape != (d_in,):
            raise MismatchError(
                expected=f"a mean of {d_in} numbers, one per input of the dictionary",
                found=f"{tuple(mean.shape)} for {modality}",
                fix="pass the mean of the activations that the dictionary is trained on",
            )
