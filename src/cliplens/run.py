"""The main job: pairs -> activations -> dictionary -> scores -> names -> report, one folder, each step resumable.

Every step leaves its files whole or not at all, so a run that was killed goes on with the first step whose files are
not there. What a step costs is kept in steps.json and reported in summary.json.
"""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt64

from cliplens import api, keys, registry
from cliplens.contracts import Metric, Namer, Reporter
from cliplens.errors import InputError, PluginError
from cliplens.exemplars import save_exemplars
from cliplens.hooked import HookedCLIP
from cliplens.naming import name_latents, words_of
from cliplens.pairs import Pairs, Quarantine
from cliplens.records import Batch, Evidence, Exemplars, GroundTruth, Pair, PairedActs
from cliplens.runfolder import RunFolder, read_json, write_json
from cliplens.sae import Dictionary, dictionary_config, train
from cliplens.sites import SIDES, Modality, Site, sites_of
from cliplens.store import Cache, Provider, harvest
from cliplens.stream import stream
from cliplens.tally import Tally, TopSamples, tally

EMBEDDING = "hook_embedding"
SCORE_ROWS = 1024
EXEMPLARS = 20
HOSTS = ("cliplens", "torch", "sae-lens", "transformer-lens", "open_clip_torch", "numpy")
Keep = Callable[[UInt64[np.ndarray, " row"]], Bool[np.ndarray, " row"]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a run is asked for; run.toml holds it. The command line has an option for each."""

    model: str
    pairs: str
    pretrained: str | None = None
    """A tag of the model, or a local weights file."""
    image_column: str | None = None
    caption_column: str | None = None
    id_column: str | None = None
    image_root: str | None = None
    hook: str = EMBEDDING
    """A hook of both towers, or a site of one ("vision.blocks.9.hook_resid_post")."""
    tower: str = "both"
    """"both", "vision" or "text"."""
    token: str = "auto"
    architecture: str = "batchtopk"
    d_sae: int | None = None
    """None: four times the width of the hook."""
    k: int | None = None
    """Latents per sample for the top-k family; None: an eighth of the width, between 8 and 64."""
    l1: float | None = None
    samples: int | None = None
    """Rows to train on; None: enough for 400 steps and 20 passes over the training rows."""
    batch_size: int = 1024
    lr: float = 1e-3
    seed: int = 0
    held_out: float = 0.2
    """Fraction of pairs kept from training; everything is scored on these."""
    centre: bool = True
    """Subtract each modality's mean before training."""
    device: str | None = None
    dtype: str = "float32"
    cache_dtype: str = "float16"
    max_bad: float = 0.01
    namer: str = "vocabulary"
    vocabulary: str | None = None
    """A file with one word or phrase a line; None: the words of the captions."""
    wandb_project: str | None = None
    sae: str | None = None
    """A dictionary made elsewhere: nothing is trained, all pairs are scored."""

    def __post_init__(self) -> None:
        if self.tower not in ("both", *SIDES):
            raise InputError(
                expected="--tower both, vision or text", found=repr(self.tower), do="name one of the three"
            )
        if not 0 < self.held_out < 1:
            raise InputError(
                expected="--held-out as a fraction between 0 and 1", found=str(self.held_out), do="give for example 0.2"
            )

    @property
    def modalities(self) -> api.Modalities:
        """What the towers asked for see."""
        hook_side = self.hook.partition(".")[0]
        side = hook_side if hook_side in SIDES else self.tower
        return {"both": "both", "vision": "image", "text": "text"}[side]  # type: ignore[return-value]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the dictionary reads."""
        return sites_of(self.hook, self.modalities)


def run(settings: Settings, out: Path, *, resume: bool = False, until: str = "report") -> RunFolder:
    """Do the main job into a folder.

    Args:
        settings: what is asked.
        out: the run folder; made when missing.
        resume: go on with an unfinished run in `out`; without it a folder that holds a run is refused.
        until: the last step: "harvest", "train", "score" or "report".

    Raises:
        InputError: the folder holds a run and `resume` is False, or it holds a run that was asked for something else.
    """
    folder = _open_folder(settings, out, resume)
    steps = Steps(folder)
    with steps("load"):
        clip = api.load(settings.model, settings.pretrained, device=settings.device, dtype=settings.dtype)
        pairs = read_pairs(settings)
        _write_settings(folder, settings, clip, pairs)
    with steps("harvest"):
        cache = _harvest(clip, pairs, settings, folder)
    if until == "harvest":
        return folder
    with steps("train"):
        dictionary = _dictionary(clip, cache, settings, folder, resume)
    if until == "train":
        return folder
    if not folder.summary.exists():
        _score(clip, pairs, cache, dictionary, settings, folder, steps)
    if until != "score":
        with steps("report"):
            write_report(folder)
    return folder


def read_pairs(settings: Settings) -> Pairs:
    """The pairs the settings name."""
    return api.read_pairs(
        settings.pairs,
        image_column=settings.image_column,
        caption_column=settings.caption_column,
        id_column=settings.id_column,
        image_root=settings.image_root,
        modalities=settings.modalities,
    )


def write_report(folder: RunFolder, names: Sequence[str] = ("html",)) -> Path:
    """Write the reports named into the run folder; the path of the last."""
    paths = [registry.find("reports", name).make(Reporter).write(folder.path) for name in names]
    return paths[-1]


class Steps:
    """Times each step and keeps the times in steps.json, so that a resumed run still knows them."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / "steps.json"
        self.seconds: dict[str, float] = read_json(self._path) if self._path.exists() else {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        took = time.perf_counter() - started
        self.seconds[name] = round(max(took, self.seconds.get(name, 0.0)), 3)
        write_json(self._path, self.seconds)


def _open_folder(settings: Settings, out: Path, resume: bool) -> RunFolder:
    folder = RunFolder(out)
    if not folder.toml.exists():
        if out.exists() and any(out.iterdir()):
            raise InputError(
                expected=f"{out} to be missing, empty, or a run folder",
                found="files that are no run",
                do="give another --out",
            )
        out.mkdir(parents=True, exist_ok=True)
        return folder
    if not resume:
        raise InputError(
            expected=f"{out} to hold no run yet",
            found="a run.toml",
            do="add --resume to go on with it, or give another --out",
        )
    before, now = folder.read_settings()["asked"], _asked(settings)
    changed = [f"{k} = {now.get(k)!r} (was {before.get(k)!r})" for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
    if changed:
        raise InputError(
            expected=f"what the run in {out} was asked before",
            found=", ".join(changed),
            do="repeat the earlier options, or give another --out",
        )
    return folder


def _asked(settings: Settings) -> dict[str, Any]:
    return {k: v for k, v in asdict(settings).items() if v is not None}


def _write_settings(folder: RunFolder, settings: Settings, clip: HookedCLIP, pairs: Pairs) -> None:
    folder.write_settings(
        {
            "asked": _asked(settings),
            "model": asdict(clip.identity),
            "pairs": {"name": pairs.name, "sha256": pairs.sha256, "count": len(pairs)},
            "versions": versions(),
        }
    )


def versions() -> dict[str, str]:
    """What this ran on: the hosts' versions, Python, the machine."""
    return {
        **{host: version(host) for host in HOSTS},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _harvest(clip: HookedCLIP, pairs: Pairs, settings: Settings, folder: RunFolder) -> Cache:
    sites = dict.fromkeys([*settings.sites, *_embedding_sites(settings)])
    return harvest(
        clip,
        pairs,
        tuple(sites),
        folder.activations,
        token=settings.token,
        dtype=settings.cache_dtype,
        quarantine=Quarantine(folder.quarantine, max_bad=settings.max_bad),
    )


def _embedding_sites(settings: Settings) -> tuple[Site, ...]:
    return tuple(Site(site.side, EMBEDDING) for site in settings.sites)


def _dictionary(clip: HookedCLIP, cache: Cache, settings: Settings, folder: RunFolder, resume: bool) -> Dictionary:
    if settings.sae is not None:
        dictionary = Dictionary.load(Path(settings.sae))
        dictionary.check(clip, settings.sites)
        return dictionary
    if not (folder.sae / "cfg.json").exists():
        dictionary = _train(cache, settings, folder, resume)
        dictionary.save(folder.sae)
    return Dictionary.load(folder.sae)


def _train(cache: Cache, settings: Settings, folder: RunFolder, resume: bool) -> Dictionary:
    provider = Provider.from_cache(
        cache,
        **_by_modality(settings.sites),
        keep=partial(_kept, settings=settings, held_out=False),
        centre=settings.centre,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    d_in = provider.d_in
    config = dictionary_config(
        settings.architecture,
        d_in,
        d_sae=settings.d_sae or 4 * d_in,
        k=settings.k or min(64, max(8, d_in // 8)),
        l1=settings.l1,
    )
    return train(
        config,
        provider,
        samples=settings.samples or max(400 * settings.batch_size, 20 * provider.rows),
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        device=settings.device,
        checkpoint_folder=folder.path / "checkpoints",
        resume=resume,
        wandb_project=settings.wandb_project,
    )


def _kept(pair_keys: UInt64[np.ndarray, " row"], *, settings: Settings, held_out: bool) -> Bool[np.ndarray, " row"]:
    if settings.sae is not None:
        return np.full(len(pair_keys), held_out)
    return keys.held_out(pair_keys, settings.held_out) == held_out


def _by_modality(sites: Sequence[Site]) -> dict[Modality, Site | None]:
    by_modality = {site.modality: site for site in sites}
    return {"image": by_modality.get("image"), "text": by_modality.get("text")}


def _score(
    clip: HookedCLIP,
    pairs: Pairs,
    cache: Cache,
    dictionary: Dictionary,
    settings: Settings,
    folder: RunFolder,
    steps: Steps,
) -> None:
    with steps("score"):
        tops: dict[Modality, TopSamples] = {s.modality: TopSamples(s.modality, EXEMPLARS) for s in settings.sites}
        metrics = [(plugin, metric) for plugin, metric in registry.made("metrics", Metric)]
        found = tally(
            _watched(_batches(cache, dictionary, settings, _truth(settings)), tops),
            metrics,
            decoder=dictionary.decoder,
        )
        by_id = {pair.id: pair for pair in pairs}
        exemplars = {modality: top.exemplars(by_id) for modality, top in tops.items()}
    with steps("name"):
        names = _name(clip, pairs, cache, dictionary, settings, exemplars, found)
        table = found.table.with_columns(names.columns, names.schema)
    save_exemplars(folder.exemplars, exemplars.get("image"), exemplars.get("text"))
    table.save(folder.latents)
    notes = [*found.notes, *names.notes, *_notes(clip, cache, settings)]
    write_json(folder.findings, {"tables": found.tables, "notes": notes, "failed": found.failed})
    write_json(folder.summary, _summary(cache, dictionary, settings, found, names.figures, steps))


def _watched(batches: Iterator[Batch], tops: dict[Modality, TopSamples]) -> Iterator[Batch]:
    for batch in batches:
        for top in tops.values():
            top.update(batch)
        yield batch


def _batches(cache: Cache, dictionary: Dictionary, settings: Settings, truth: GroundTruth | None) -> Iterator[Batch]:
    keep = partial(_kept, settings=settings, held_out=True)
    read = partial(cache.batches, keep=keep, batch_size=SCORE_ROWS)
    acts = read(**_by_modality(settings.sites))
    embeddings = read(**_by_modality(_embedding_sites(settings)))
    for raw, embedded in zip(acts, embeddings, strict=True):
        codes = dictionary.encode(raw)
        yield Batch(
            acts=dictionary.centre(raw),
            codes=codes,
            reconstruction=dictionary.decode(codes),
            judged={"clip": _unit(embedded)},
            truth=truth.rows(raw.ids) if truth else {},
        )


def _unit(acts: PairedActs) -> PairedActs:
    def normalised(rows: torch.Tensor | None) -> torch.Tensor | None:
        return None if rows is None else torch.nn.functional.normalize(rows.double(), dim=-1)

    return replace(acts, image=normalised(acts.image), text=normalised(acts.text))


def _truth(settings: Settings) -> GroundTruth | None:
    if not settings.pairs.startswith(api.WORLD_PREFIX):
        return None
    from cliplens.world import ground_truth

    count, seed = api.parse_world(settings.pairs)
    return ground_truth(count, seed=seed)


def _name(
    clip: HookedCLIP,
    pairs: Pairs,
    cache: Cache,
    dictionary: Dictionary,
    settings: Settings,
    exemplars: dict[Modality, Exemplars],
    found: Tally,
) -> Any:
    sites = _by_modality(settings.sites)
    vocabulary = _vocabulary(pairs, settings)
    vocabulary_acts = None
    if sites["text"] is not None:
        words = Pairs([Pair(word, None, word) for word in vocabulary], name="vocabulary")
        vocabulary_acts = torch.cat(
            [dictionary.centre(a).text for a in stream(clip, words, [sites["text"]], token=settings.token)]
        )
    evidence = Evidence(
        d_sae=dictionary.d_sae,
        alive=found.table["alive"].astype(bool),
        images=exemplars.get("image"),
        texts=exemplars.get("text"),
        decoder=dictionary.decoder,
        vocabulary=vocabulary,
        vocabulary_acts=vocabulary_acts,
        image_acts=_exemplar_acts(cache, dictionary, sites["image"], exemplars.get("image")),
        text_acts=_exemplar_acts(cache, dictionary, sites["text"], exemplars.get("text")),
    )
    return name_latents(evidence, registry.find("namers", settings.namer).make(Namer))


def _vocabulary(pairs: Pairs, settings: Settings) -> tuple[str, ...]:
    if settings.vocabulary is None:
        return words_of([pair.caption for pair in pairs if pair.caption])
    lines = Path(settings.vocabulary).read_text().splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _exemplar_acts(
    cache: Cache, dictionary: Dictionary, site: Site | None, exemplars: Exemplars | None
) -> torch.Tensor | None:
    if site is None or exemplars is None:
        return None
    wanted = {pair.id: place for place, pair in enumerate(exemplars.pairs)}
    out = torch.zeros(len(wanted), dictionary.d_in)
    for raw in cache.batches(**_by_modality([site]), batch_size=SCORE_ROWS):
        centred = dictionary.centre(raw).of(site.modality)
        for row, pair_id in enumerate(raw.ids):
            if pair_id in wanted:
                out[wanted[pair_id]] = centred[row]
    return out


def _notes(clip: HookedCLIP, cache: Cache, settings: Settings) -> list[str]:
    notes = []
    if cache.truncated:
        notes.append(f"{cache.truncated} captions were longer than the model's context and were cut, as open_clip does.")
    if clip.identity.name.startswith("world") and not settings.pairs.startswith(api.WORLD_PREFIX):
        notes.append(
            "Out of domain: the embedded model has only ever seen the drawings and captions of its own world. "
            "On other pairs it proves that everything works, not what the pairs hold."
        )
    if EMBEDDING in {site.hook for site in settings.sites}:
        notes.append("The judge 'clip' is the model itself: monosemanticity by it is circular. Compare, do not quote.")
    return notes


def _summary(
    cache: Cache,
    dictionary: Dictionary,
    settings: Settings,
    found: Tally,
    naming: Any,
    steps: Steps,
) -> dict[str, Any]:
    return {
        "pairs": len(cache.ids),
        "quarantined": cache.quarantined,
        "truncated": cache.truncated,
        "model": settings.model,
        "sites": [str(site) for site in settings.sites],
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        **found.figures,
        **naming,
        "seconds": steps.seconds,
        "versions": versions(),
    }
