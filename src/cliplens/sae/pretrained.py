"""Read a published dictionary by name: from the Hugging Face hub, a SAELens release, or a local path."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from cliplens.errors import CliplensError, InputError, unknown_name
from cliplens.sae.folder import Stored, is_saelens, load_folder
from cliplens.sae.foreign import convert
from cliplens.sae.scaler import fold_scaler

HUB = "hf:"
_WEIGHTS = (".safetensors", ".pt", ".pth", ".npz")
_OTHERS = ("means.", "sparsity", "optimizer", "trainer_state")
_CLIPLENS_EXPORT = "shared"
_Result = TypeVar("_Result")


def read_pretrained(
    name: Path | str,
    sae_id: str | None = None,
    *,
    layout: str | None = None,
    hook_name: str | None = None,
    revision: str | None = None,
    device: torch.device | str = "cpu",
) -> Stored:
    """Read a dictionary by name; see `Dictionary.from_pretrained`."""
    if isinstance(name, str) and name.startswith(HUB):
        return _from_disk(_downloaded(name.removeprefix(HUB), sae_id, revision), layout, hook_name, device)
    path = Path(name)
    if path.exists():
        return _from_disk(path / sae_id if sae_id else path, layout, hook_name, device)
    return _from_release(str(name), sae_id, device)


def located(name: Path | str) -> Path:
    """Return where a dictionary lies on this disk; files of `hf:owner/name` or `hf:owner/name/folder` are downloaded.

    Raises:
        UnknownNameError: the repository has no such dictionary; the message lists the nearest names.
        InputError: the hub cannot be reached, or there are several dictionaries and none is named.
    """
    if isinstance(name, str) and name.startswith(HUB):
        return _downloaded(name.removeprefix(HUB), None, None)
    return Path(name)


def _from_disk(path: Path, layout: str | None, hook_name: str | None, device: torch.device | str) -> Stored:
    if layout is None and is_saelens(path):
        return load_folder(path, torch.device(device))
    sae = convert(path, layout, hook_name=hook_name)
    return Stored(sae.to(device=torch.device(device)), None, None)


def _from_release(release: str, sae_id: str | None, device: torch.device | str) -> Stored:
    known = get_pretrained_saes_directory()
    if release not in known:
        if "/" in release:
            raise InputError(
                expected="a local path, the name of a SAELens release, or a repository as hf:owner/name",
                found=repr(release),
                fix=f"write hf:{release} for a repository on the hub, or check the path",
            )
        raise unknown_name("SAELens release", release, known)
    ids = known[release].saes_map
    if sae_id is None:
        raise InputError(
            expected=f"the name of one of the {len(ids)} dictionaries in the release {release}",
            found="no name",
            fix=f'name one: Dictionary.from_pretrained("{release}", "{next(iter(ids))}")',
        )
    if sae_id not in ids:
        raise unknown_name(f"dictionary in the release {release}", sae_id, ids)
    sae = _asking_hub(
        release, lambda: SAE.from_pretrained_with_cfg_and_sparsity(release, sae_id, device=str(device))[0]
    )
    fold_scaler(sae, None)
    return Stored(sae.requires_grad_(False), None, None)


def _downloaded(name: str, sae_id: str | None, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    owner, _, rest = name.partition("/")
    repo, _, inner = rest.partition("/")
    if not owner or not repo:
        raise InputError(expected="a repository as hf:owner/name", found=f"{HUB}{name}", fix="write hf:owner/name")
    repository, asked = f"{owner}/{repo}", sae_id or inner or None
    files: Sequence[str] = _asking_hub(
        repository, lambda: HfApi().list_repo_files(repository, revision=revision or "main")
    )
    target = _choose(files, asked, repository)
    parent = target.parent if target.suffix in _WEIGHTS else target
    wanted = [file for file in files if PurePosixPath(file).parent == parent]
    local = _asking_hub(
        repository,
        lambda: snapshot_download(repository, revision=revision, allow_patterns=[_literal(f) for f in wanted]),
    )
    return Path(local) / target


def _choose(files: Sequence[str], asked: str | None, repository: str) -> PurePosixPath:
    """Return the folder or file of the requested dictionary."""
    weights = [
        PurePosixPath(file)
        for file in files
        if file.endswith(_WEIGHTS) and not any(other in PurePosixPath(file).name for other in _OTHERS)
    ]
    folders = {path.parent for path in weights}
    if asked is not None:
        path = PurePosixPath(asked.strip("/"))
        if path in folders or path in weights:
            return path
        raise unknown_name(f"dictionary in {repository}", asked, [str(p) for p in (*folders, *weights)])
    for folder in (PurePosixPath("."), PurePosixPath(_CLIPLENS_EXPORT)):
        if folder in folders:
            return folder
    if len(folders) == 1:
        return next(iter(folders))
    listed = ", ".join(sorted(map(str, folders))[:5]) or "none"
    raise InputError(
        expected=f"the name of one of the dictionaries in {repository}",
        found=f"{len(folders)} dictionaries ({listed}) and no name" if folders else "no weights in it",
        fix=f"name one: {HUB}{repository}/{sorted(map(str, folders))[0] if folders else 'folder'}",
    )


def _literal(file: str) -> str:
    """Return a pattern that matches only this file name."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in file)


def _asking_hub(name: str, ask: Callable[[], _Result]) -> _Result:
    """Call the client of the hub; convert errors of network, hub or cache to an InputError."""
    try:
        return ask()
    except CliplensError:
        raise
    except Exception as error:
        said: Any = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            expected=f"the dictionary {name} from the Hugging Face hub, or from its cache",
            found=f"{type(error).__name__}: {said[0]}",
            fix="check the name and the network; without a network, copy the dictionary here and pass the local folder",
        ) from error
