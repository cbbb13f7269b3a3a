"""Train one top-k dictionary with one peer on the same rows.

Every peer gets the same batches, width, k, learning rate and number of steps. The time is the CPU time of the training
loop alone, by the peer's own loop where it has one. The rows are centred by their mean.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from _case import Options, arrays, main, seconds, source

Encoded = tuple[torch.Tensor, torch.Tensor]
"""Codes [row, d_sae] and reconstruction [row, d_in]."""
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
    kept: list[Any] = []
    return seconds(lambda: kept.append(work())), kept[0]


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
    took, _ = timed(lambda: SAETrainer(config, sae, iter(batches(rows, asked))).fit())
    return took, lambda x: (codes := sae.encode(x), sae.decode(codes))


def cliplens(rows: torch.Tensor, asked: Options) -> Trained:
    """Our `train` with its sparse step, on the same trainer."""
    from cliplens.records import PairedActs
    from cliplens.sae import dictionary_config, train

    config = dictionary_config("topk", rows.shape[1], asked.d_sae, k=asked.k)
    given = {"samples": asked.steps * asked.batch, "batch_size": asked.batch, "lr": asked.lr, "fast": True}
    took, dictionary = timed(lambda: train(config, iter(batches(rows, asked)), **given))

    def encode(x: torch.Tensor) -> Encoded:
        batch = dictionary.batch(PairedActs(tuple(map(str, range(len(x)))), x, None))
        return batch.codes.image.dense(), batch.reconstruction.image

    return took, encode


def overcomplete(rows: torch.Tensor, asked: Options) -> Trained:
    """overcomplete's TopKSAE and `train_sae`."""
    from overcomplete.sae import TopKSAE, train_sae

    sae = TopKSAE(rows.shape[1], nb_concepts=asked.d_sae, top_k=asked.k, device="cpu")
    optimizer = torch.optim.Adam(sae.parameters(), lr=asked.lr)
    loader = [(batch,) for batch in batches(rows, asked)]

    def loss(x: Any, x_hat: Any, pre_codes: Any, codes: Any, dictionary: Any) -> torch.Tensor:
        return (x - x_hat).square().mean()

    took, _ = timed(lambda: train_sae(sae, loader, loss, optimizer, nb_epochs=1, device="cpu"))
    sae.eval()
    return took, lambda x: (codes := sae.encode(x)[1], sae.decode(codes))


def dictionary_learning(rows: torch.Tensor, asked: Options) -> Trained:
    """dictionary_learning's TopKTrainer."""
    from dictionary_learning.trainers import top_k

    return _top_k_trainer(top_k, rows, asked)


def sae_for_vlm(rows: torch.Tensor, asked: Options) -> Trained:
    """The TopKTrainer of the copy of dictionary_learning that sae-for-vlm trains with."""
    return _top_k_trainer(source(asked, "dictionary_learning.trainers.top_k"), rows, asked)


def _top_k_trainer(module: Any, rows: torch.Tensor, asked: Options) -> Trained:
    given = {"steps": asked.steps, "activation_dim": rows.shape[1], "dict_size": asked.d_sae, "k": asked.k}
    trainer = module.TopKTrainer(
        **given, layer=0, lm_name="none", dict_class=module.AutoEncoderTopK, lr=asked.lr, device="cpu", warmup_steps=0,
        decay_start=None,
    )  # fmt: skip

    def loop() -> None:
        for step, batch in enumerate(batches(rows, asked)):
            trainer.update(step, batch)

    took, _ = timed(loop)
    return took, lambda x: (codes := trainer.ae.encode(x), trainer.ae.decode(codes))


def sparsify(rows: torch.Tensor, asked: Options) -> Trained:
    """eai-sparsify's SparseCoder in a loop of our own, as its trainer reads a language model.

    Its decoder is a Triton kernel where Triton is installed, which needs a GPU; `SPARSIFY_DISABLE_TRITON` turns it off.
    """
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(rows.shape[1], SparseCoderConfig(num_latents=asked.d_sae, k=asked.k), device="cpu")
    optimizer = torch.optim.Adam(coder.parameters(), lr=asked.lr)

    def loop() -> None:
        for batch in batches(rows, asked):
            optimizer.zero_grad()
            coder(batch).fvu.backward()
            optimizer.step()
            coder.set_decoder_norm_to_unit_norm()

    took, _ = timed(loop)

    def encode(x: torch.Tensor) -> Encoded:
        out = coder(x)
        codes = torch.zeros(len(x), asked.d_sae).scatter_(1, out.latent_indices, out.latent_acts)
        return codes, out.sae_out

    return took, encode


def vit_prisma(rows: torch.Tensor, asked: Options) -> Trained:
    """ViT-Prisma's StandardSparseAutoencoder in the order of its train step, as its trainer reads a vision model."""
    from vit_prisma.sae.config import VisionModelSAERunnerConfig
    from vit_prisma.sae.sae import StandardSparseAutoencoder

    config = VisionModelSAERunnerConfig(
        d_in=rows.shape[1], expansion_factor=asked.d_sae // rows.shape[1], activation_fn_str="topk", _device="cpu",
        activation_fn_kwargs={"k": asked.k}, normalize_activations="none", b_dec_init_method="zeros",
    )  # fmt: skip
    sae = StandardSparseAutoencoder(config)
    optimizer = torch.optim.Adam(sae.parameters(), lr=asked.lr)

    def loop() -> None:
        for batch in batches(rows, asked):
            sae.set_decoder_norm_to_unit_norm()
            optimizer.zero_grad()
            sae(batch)[2].backward()
            sae.remove_gradient_parallel_to_decoder_directions()
            optimizer.step()

    took, _ = timed(loop)
    return took, lambda x: (codes := sae.encode(x)[1], sae.decode(codes))


def measured(train: Callable[[torch.Tensor, Options], Trained]) -> Callable[[Options], dict[str, Any]]:
    """Return a case that trains and measures the dictionary on held-out rows."""

    def case(asked: Options) -> dict[str, Any]:
        held = arrays(asked, "rows")
        test = held["test"]
        took, encode = train(held["train"], asked)
        with torch.no_grad():
            codes, back = encode(test)
        error = (test - back).double().square().sum()
        variance = (test - test.mean(0)).double().square().sum()
        return {
            "ms_per_step": 1e3 * took / asked.steps,
            "explained_variance": float(1 - error / variance),
            "l0": float((codes != 0).sum(1).double().mean()),
            "dead": float(((codes != 0).sum(0) == 0).double().mean()),
        }

    return case


PEERS = (cliplens, sae_lens, overcomplete, dictionary_learning, sae_for_vlm, sparsify, vit_prisma)

if __name__ == "__main__":
    main({f.__name__: measured(f) for f in PEERS}, __doc__, steps=400, batch=256, d_sae=512, k=8, lr=1e-3)
