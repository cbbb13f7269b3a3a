"""Train the tiny model in two steps: its tower on the words of captions, then its language part on questions."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from _vision_language.layout import IMAGE, model_of, processor_of, seen, tokenizer_of
from _vision_language.questions import Asked, Captions, Questions
from cliplens.world import world_pairs

BATCH, RATE = 128, 3e-3
_ASKED = {True: 32, False: 12}
"""Questions per step on pictures and on captions, which are longer."""


def trained(folder: Path, *, pairs: int, world_seed: int, seed: int, tower: float, language: float) -> dict[str, float]:
    """Train a model on pairs of the world and write it with its processor. Only pictures and captions are used.

    Args:
        folder: folder to write.
        pairs: number of training pairs.
        world_seed: seed of the world whose pairs are taken.
        seed: seed of the weights and of the questions.
        tower, language: CPU seconds of each step.

    Returns:
        What it cost, and the last loss of each step.
    """
    started = time.process_time()
    torch.manual_seed(seed)
    drawn = world_pairs(pairs, seed=world_seed)
    each = [drawn[n] for n in range(pairs)]
    pictures = torch.stack([torch.from_numpy(np.asarray(p.image).copy()) for p in each]).permute(0, 3, 1, 2)
    captions = Captions([str(p.caption) for p in each])
    tokenizer = tokenizer_of(captions.vocabulary)
    model = model_of(tokenizer)
    head = nn.Linear(model.config.text_config.hidden_size, len(captions.names))
    losses = {"loss of the tower": _see(model, head, pictures, captions, tower, seed)}
    rows = torch.tensor(tokenizer.convert_tokens_to_ids(captions.names))
    with torch.no_grad():
        model.lm_head.weight[rows] = head.weight  # the answers start with what the tower's words are read by
        states = torch.cat([seen(model, pictures[n : n + 512]) for n in range(0, pairs, 512)])
    with torch.no_grad():
        words = F.normalize(head.weight, dim=1) * states.norm(dim=1).mean()
        model.model.text_model.embed_tokens.weight[rows] = words  # and so do the words of a question
    losses["loss of the answers"] = _answer(model, states, Questions(captions, tokenizer, seed), tokenizer, language)
    model.eval().save_pretrained(folder)
    processor_of(tokenizer).save_pretrained(folder)
    size = sum(p.numel() for p in model.parameters())
    return {"parameters": size, "CPU seconds": time.process_time() - started, **losses}


def _see(model: Any, head: nn.Linear, pictures: torch.Tensor, captions: Captions, seconds: float, seed: int) -> float:
    """Train the tower and the connector to tell the words of a picture's caption."""
    words = torch.from_numpy(captions.has).float()
    parts = [*model.model.vision_model.parameters(), *model.model.connector.parameters(), *head.parameters()]
    draw = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        chosen = torch.randint(len(pictures), (BATCH,), generator=draw)
        said = head(seen(model, pictures[chosen]))
        return F.binary_cross_entropy_with_logits(said, words[chosen], reduction="none").sum(1).mean()

    return _minimised(parts, loss, seconds)


def _answer(model: Any, states: torch.Tensor, questions: Questions, tokenizer: Any, seconds: float) -> float:
    """Train the language part to answer; what the tower sees stays as it is."""
    parts = [*model.model.text_model.parameters(), *model.lm_head.parameters()]
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    count = 0

    def loss() -> torch.Tensor:
        nonlocal count
        count += 1
        pictures = count % 3 != 0
        asked = [questions.draw(pictures=pictures) for _ in range(_ASKED[pictures])]
        ids, labels = _padded(asked, tokenizer.pad_token_id)
        embedded = model.model.text_model.embed_tokens(ids)
        if pictures:
            shown = states[torch.tensor([pair for one in asked for pair in one.pairs])]
            embedded = embedded.masked_scatter((ids == image)[..., None], shown)
        mask = (torch.arange(ids.shape[1]) < torch.tensor([len(a.ids) + len(a.answer) for a in asked])[:, None]).long()
        out = model.model.text_model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        keep = labels[:, 1:] != -100
        return F.cross_entropy(model.lm_head(out[:, :-1][keep]), labels[:, 1:][keep])

    return _minimised(parts, loss, seconds)


def _padded(asked: list[Asked], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(a.ids) + len(a.answer) for a in asked)
    ids, labels = torch.full((len(asked), length), pad), torch.full((len(asked), length), -100)
    for row, one in enumerate(asked):
        whole = torch.tensor([*one.ids, *one.answer])
        ids[row, : len(whole)] = whole
        labels[row, len(one.ids) : len(whole)] = torch.tensor(one.answer)
    return ids, labels


def _minimised(parts: list[Any], loss: Any, seconds: float) -> float:
    """Minimise a loss for some CPU seconds; the learning rate falls to 0. Return the mean of the last 20 losses."""
    optimizer = torch.optim.AdamW(parts, lr=RATE, weight_decay=0.05)
    started, last, step = time.process_time(), [], 0
    while (spent := (time.process_time() - started) / seconds) < 1:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / 50) * 0.5 * (1 + np.cos(np.pi * spent))
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parts, 1.0)
        optimizer.step()
        last = [*last[-19:], float(value.detach())]
        if step % 50 == 0:
            print(f"step {step}, {spent:.0%}: {sum(last) / len(last):.3f}", flush=True)
    return sum(last) / len(last)
