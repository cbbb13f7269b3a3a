"""Train one top-k dictionary with one peer, in the peer's environment, and write the measurements as JSON.

Every peer gets the same rows, width, k, batch size, learning rate and number of steps. The time is the CPU time of the
training loop alone, by the peer's own loop where it has one. Every peer gets rows centred by their mean.
"""

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Encoded = tuple[torch.Tensor, torch.Tensor]
"""Codes [row, d_sae] and reconstruction [row, d_in]."""
Options = argparse.Namespace
Trained = tuple[float, Callable[[torch.Tensor], Encoded]]
"""Seconds, and a function of rows that encodes them."""


def batches(rows: torch.Tensor, asked: Options) -> list[torch.Tensor]:
    """Return the batches of all steps, drawn with one seed."""
    draw = torch.Generator().manual_seed(0)
    order = torch.cat(
        [torch.randperm(len(rows), generator=draw) for _ in range(-(-asked.steps * asked.batch // len(rows)))]
    )
    return [rows[order[n * asked.batch : (n + 1) * asked.batch]] for n in range(asked.steps)]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a call, and what it returns."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def sae_lens(rows: torch.Tensor, asked: Options) -> Trained:
    """SAELens' own trainer and its stock TopK class."""
    from sae_lens import LoggingConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=rows.shape[1], d_sae=asked.d_sae, k=asked.k))
    given = {"lr": asked.lr, "lr_end": asked.lr, "device": "cpu", "logger": LoggingConfig(log_to_wandb=False)}
    config = SAETrainerConfig(
        total_training_samples=asked.steps * asked.batch, train_batch_size_samples=asked.batch, **given
    )
    seconds, _ = timed(lambda: SAETrainer(config, sae, iter(batches(rows, asked))).fit())
    return seconds, lambda x: (codes := sae.encode(x), sae.decode(codes))


def cliplens(rows: torch.Tensor, asked: Options) -> Trained:
    """Our `train` with its sparse step, on the same trainer."""
    from cliplens.records import PairedActs
    from cliplens.sae import dictionary_config, train

    config = dictionary_config("topk", rows.shape[1], asked.d_sae, k=asked.k)
    given = {"samples": asked.steps * asked.batch, "batch_size": asked.batch, "lr": asked.lr, "fast": True}
    seconds, dictionary = timed(lambda: train(config, iter(batches(rows, asked)), **given))

    def encode(x: torch.Tensor) -> Encoded:
        batch = dictionary.batch(PairedActs(tuple(map(str, range(len(x)))), x, None))
        return batch.codes.image.dense(), batch.reconstruction.image

    return seconds, encode


def overcomplete(rows: torch.Tensor, asked: Options) -> Trained:
    """overcomplete's TopKSAE and `train_sae`."""
    from overcomplete.sae import TopKSAE, train_sae

    sae = TopKSAE(rows.shape[1], nb_concepts=asked.d_sae, top_k=asked.k, device="cpu")
    optimizer = torch.optim.Adam(sae.parameters(), lr=asked.lr)
    loader = [(batch,) for batch in batches(rows, asked)]

    def loss(x: Any, x_hat: Any, pre_codes: Any, codes: Any, dictionary: Any) -> torch.Tensor:
        return (x - x_hat).square().mean()

    seconds, _ = timed(lambda: train_sae(sae, loader, loss, optimizer, nb_epochs=1, device="cpu"))
    sae.eval()
    return seconds, lambda x: (codes := sae.encode(x)[1], sae.decode(codes))


def dictionary_learning(rows: torch.Tensor, asked: Options) -> Trained:
    """dictionary_learning's TopKTrainer."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer

    given = {"steps": asked.steps, "activation_dim": rows.shape[1], "dict_size": asked.d_sae, "k": asked.k}
    trainer = TopKTrainer(
        **given, layer=0, lm_name="none", dict_class=AutoEncoderTopK, lr=asked.lr, device="cpu", warmup_steps=0,
        decay_start=None,
    )  # fmt: skip

    def loop() -> None:
        for step, batch in enumerate(batches(rows, asked)):
            trainer.update(step, batch)

    seconds, _ = timed(loop)
    return seconds, lambda x: (codes := trainer.ae.encode(x), trainer.ae.decode(codes))


def sparsify(rows: torch.Tensor, asked: Options) -> Trained:
    """eai-sparsify's SparseCoder in a loop of our own, as its trainer reads a language model."""
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(rows.shape[1], SparseCoderConfig(num_latents=asked.d_sae, k=asked.k), device="cpu")
    optimizer = torch.optim.Adam(coder.parameters(), lr=asked.lr)

    def loop() -> None:
        for batch in batches(rows, asked):
            optimizer.zero_grad()
            coder(batch).fvu.backward()
            optimizer.step()
            coder.set_decoder_norm_to_unit_norm()

    seconds, _ = timed(loop)

    def encode(x: torch.Tensor) -> Encoded:
        out = coder(x)
        codes = torch.zeros(len(x), asked.d_sae).scatter_(1, out.latent_indices, out.latent_acts)
        return codes, out.sae_out

    return seconds, encode


PEERS = {f.__name__: f for f in (cliplens, sae_lens, overcomplete, dictionary_learning, sparsify)}
PACKAGES = {"sae_lens": "sae-lens", "dictionary_learning": "dictionary-learning", "sparsify": "eai-sparsify"}


def main() -> None:
    """Train and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    for name, default in (("steps", 400), ("batch", 256), ("d_sae", 512), ("k", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--out", required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    held = np.load(asked.rows)
    train, test = (torch.from_numpy(held[name]) for name in ("train", "test"))
    torch.manual_seed(0)
    seconds, encode = PEERS[asked.peer](train, asked)
    with torch.no_grad():
        codes, back = encode(test)
    error = (test - back).double().square().sum()
    variance = (test - test.mean(0)).double().square().sum()
    found = {
        "ms_per_step": 1e3 * seconds / asked.steps,
        "explained_variance": float(1 - error / variance),
        "l0": float((codes != 0).sum(1).double().mean()),
        "dead": float(((codes != 0).sum(0) == 0).double().mean()),
        "version": importlib.metadata.version(PACKAGES.get(asked.peer, asked.peer)),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    Path(asked.out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
