"""How many latents fire per row after short and long trainings, by SAELens' running threshold and the measured one?

    python benchmarks/threshold.py [--steps 16 64 128 400 1200] [--seeds 3]

BatchTopK dictionaries of the embedded world's final embeddings, k = 8. `stock` is SAELens' trainer with its default
rate, `raised rate` the running mean with the rate that `runner_config` and `train` set, `measured` the threshold that
`train` sets when the weights are final. All count on the training rows. Mean over seeds with a t-interval.
"""

import torch
from sae_lens import SAETrainer
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class

import cliplens
from _bench import Bench, bench, mean
from cliplens.records import PairedActs
from cliplens.sae import Dictionary, calibration_of, dictionary_config, train
from cliplens.sites import sites_of
from cliplens.store import Provider
from cliplens.stream import stream

K, BATCH, RATE = 8, 1024, 1e-3


def main(b: Bench) -> None:
    """Print one row per number of steps."""
    pairs = cliplens.read_pairs(f"world:{b.args.pairs}")
    parts = list(stream(cliplens.load("world"), pairs, sites_of("hook_embedding"), forward_batch=256))
    image, text = (torch.cat([part.of(m) for part in parts]) for m in ("image", "text"))  # type: ignore[misc]
    acts = PairedActs(tuple(i for part in parts for i in part.ids), image, text)
    columns = {"steps": "", "stock": ".2f", "raised rate": ".2f", "measured": ".2f"}
    b.table(f"Latents that fire per row, k = {K}, {b.args.d_sae} latents", columns)
    for steps in b.args.steps:
        found = [counts(acts, b.args.d_sae, steps, seed) for seed in range(b.args.seeds)]
        b.row(steps, *(mean([one[n] for one in found]) for n in range(3)))


def counts(acts: PairedActs, d_sae: int, steps: int, seed: int) -> tuple[float, float, float]:
    """Return the latents that fire per row by each threshold."""
    config = dictionary_config("batchtopk", acts.image.shape[1], d_sae, k=K)  # type: ignore[union-attr]
    provider = Provider.from_acts(acts, batch_size=BATCH, seed=seed)
    torch.manual_seed(seed)
    plain = get_sae_training_class("batchtopk")[0](config)
    settings = SAETrainerConfig(
        total_training_samples=steps * BATCH, train_batch_size_samples=BATCH, lr=RATE, lr_end=RATE,
        lr_decay_steps=steps // 5, device="cpu",
        n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, logger=_logger(),
    )  # fmt: skip
    SAETrainer(settings, plain, provider).fit()
    stock = Dictionary(plain, provider.means).encode(acts)
    fired = sum(len(c.values) for c in (stock.image, stock.text) if c is not None) / (2 * len(acts))
    again = Provider.from_acts(acts, batch_size=BATCH, seed=seed)
    ours = train(config, again, samples=steps * BATCH, batch_size=BATCH, lr=RATE, seed=seed)
    measured = calibration_of(ours.sae.cfg.metadata)
    assert measured is not None
    return fired, measured.running_l0, measured.l0


def _logger():  # type: ignore[no-untyped-def]
    from sae_lens.config import LoggingConfig

    return LoggingConfig(log_to_wandb=False)


if __name__ == "__main__":
    with bench(__file__, __doc__, steps=[16, 64, 128, 400, 1200], seeds=3, pairs=1024, d_sae=256) as found_here:
        main(found_here)
