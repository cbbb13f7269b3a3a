"""Write and read the origin of a dictionary in SAELens' metadata.

SAELens preserves the object `metadata` in `cfg.json`. Fields that SAELens reads (`model_name`, `hook_name`) are at its
top level; those of cliplens are under the key `cliplens`.
"""

from dataclasses import fields
from typing import Any

from sae_lens.saes.sae import SAEMetadata

from cliplens.errors import DamagedError
from cliplens.records import ModelIdentity, Provenance
from cliplens.sites import Modality, Site

KEY = "cliplens"


def write_provenance(metadata: SAEMetadata, provenance: Provenance, folded_mean_of: Modality | None = None) -> None:
    """Write a provenance into the metadata, in place. `folded_mean_of` marks the copy for raw activations."""
    sites = [Site.parse(name) for name in provenance.sites]
    if folded_mean_of is not None:
        sites = [site for site in sites if site.modality == folded_mean_of] or sites
    metadata.model_name = provenance.model.name
    metadata.model_class_name = "HookedCLIP"
    metadata.hook_name = sites[0].hook
    metadata.clip_tower = sites[0].side if len(sites) == 1 else "both"
    metadata.clip_pretrained = provenance.model.pretrained
    metadata.weights_sha256 = provenance.model.weights_sha256
    metadata.preprocess = provenance.model.preprocess
    metadata.token = provenance.token
    metadata.centring = _centring(provenance, folded_mean_of)
    content = {**vars(provenance), "sites": list(provenance.sites), "model": vars(provenance.model)}
    metadata[KEY] = {**content, "folded_mean_of": folded_mean_of}


def read_provenance(metadata: SAEMetadata) -> Provenance | None:
    """Return the provenance that `write_provenance` wrote; None for other dictionaries."""
    content = metadata[KEY]
    if not isinstance(content, dict):
        return None
    try:
        known = _known(Provenance, content)
        model = ModelIdentity(**_known(ModelIdentity, content["model"]))
        return Provenance(**{**known, "model": model, "sites": tuple(content["sites"])})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(
            expected="the model and the sites of a dictionary in metadata.cliplens of its cfg.json",
            found=str(error),
            fix="copy the folder again, or save the dictionary again",
        ) from error


def folded_mean_of(metadata: SAEMetadata) -> Modality | None:
    """Return the modality of a copy that reads raw activations; None for the dictionary itself."""
    content = metadata[KEY]
    return content.get("folded_mean_of") if isinstance(content, dict) else None


def _known(record: type, content: dict[str, Any]) -> dict[str, Any]:
    # A later version may have written further fields.
    names = {f.name for f in fields(record)}
    return {name: value for name, value in content.items() if name in names}


def _centring(provenance: Provenance, folded_mean_of: Modality | None) -> str:
    if not provenance.centred:
        return "none"
    if folded_mean_of is None:
        return "reads activations less their modality's mean (means.safetensors)"
    return f"reads raw activations, the {folded_mean_of} mean is folded into the weights"
