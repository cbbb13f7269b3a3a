"""Changes of core logic that must be noticed: each was once made and no test failed."""

from dataclasses import dataclass

_PLUGINS, _SOURCE = "plugins/cliplens_plugins", "src/cliplens"


@dataclass(frozen=True)
class Named:
    """Text of a file that is replaced, once, line for line, and the tests that are run."""

    what: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


NAMED = (
    Named(
        "iso-energy: sign of the alignment loss",
        f"{_SOURCE}/sae/architectures/iso_energy.py",
        '"alignment_loss": -self.cfg',
        '"alignment_loss": self.cfg',
        ("tests/src/sae/test_paired_classes.py",),
    ),
    Named(
        "iso-energy: coefficient not multiplied by d_in",
        f"{_SOURCE}/sae/architectures/iso_energy.py",
        "self.cfg.align_coefficient * self.cfg.d_in * alignment",
        "self.cfg.align_coefficient * alignment",
        ("tests/src/sae/test_paired_classes.py",),
    ),
    Named(
        "NCL: the two heads swapped in training",
        f"{_SOURCE}/sae/architectures/ncl.py",
        "[image @ self.W_enc + self.b_enc, text @ self.W_enc_text + self.b_enc_text]",
        "[image @ self.W_enc_text + self.b_enc_text, text @ self.W_enc + self.b_enc]",
        ("tests/src/sae/test_paired_classes.py",),
    ),
    Named(
        "NCL: the two heads swapped when saved",
        f"{_SOURCE}/sae/architectures/ncl.py",
        'if modality == "text" else (self.W_enc, self.b_enc)',
        'if modality != "text" else (self.W_enc, self.b_enc)',
        ("tests/src/sae/test_paired_classes.py",),
    ),
    Named(
        "cache: the mask of the first shard for all",
        f"{_SOURCE}/store/cache.py",
        "keep(self.keys[here])",
        "keep(self.keys[: record.rows])",
        ("tests/src/store/test_harvest.py", "tests/src/store/test_provider.py"),
    ),
    Named(
        "stream: `finite` lets +inf through",
        f"{_SOURCE}/stream/acts.py",
        "if torch.isfinite(low) and torch.isfinite(high):",
        "if torch.isfinite(low) and not torch.isnan(high):",
        ("tests/src/test_stream.py",),
    ),
    Named(
        "stream: `finite` names the first pair wrongly where +inf stands alone",
        f"{_SOURCE}/stream/acts.py",
        "bad = ~torch.isfinite(found.acts).flatten(1).all(1)",
        "bad = found.acts.isnan().flatten(1).any(1) | found.acts.isneginf().flatten(1).any(1)",
        ("tests/src/test_stream.py",),
    ),
    Named(
        "loss: SigLIP's logit bias dropped",
        f"{_SOURCE}/tasks.py",
        "logsigmoid(own * (logits + bias))",
        "logsigmoid(own * logits)",
        ("tests/src/test_tasks.py", "tests/plugins/fidelity/test_downstream.py"),
    ),
    Named(
        "downstream: the model's logit bias dropped",
        f"{_PLUGINS}/fidelity/downstream.py",
        "scale, bias = clip.logit_scale_and_bias()",
        "scale, bias = clip.logit_scale_and_bias()[0], None",
        ("tests/plugins/fidelity/test_downstream.py",),
    ),
    Named(
        "hooked model: logit bias dropped",
        f"{_SOURCE}/hooked/clip.py",
        'return scale.exp(), getattr(self.model, "logit_bias", None)',
        "return scale.exp(), None",
        ("tests/src/hooked/test_clip.py", "tests/hooks/test_open_clip_models.py"),
    ),
    Named(
        "causal: random directions not matched in size",
        f"{_PLUGINS}/modality/causal.py",
        "normalize(drawn) * direction.norm()",
        "normalize(drawn)",
        ("tests/plugins/modality",),
    ),
    Named(
        "causal at hooks: random directions not matched in size",
        f"{_PLUGINS}/modality/causal_splice.py",
        "lost = next(sizes)[..., None] * direction",
        "lost = torch.ones_like(next(sizes)[..., None]) * direction",
        ("tests/plugins/modality",),
    ),
    Named(
        "text tower: argmax in place of the end token",
        "hooks/cliplens_hooks/towers/open_clip.py",
        "return (inputs == stock.eos_id).int().argmax(dim=-1)",
        "return inputs.argmax(dim=-1)",
        ("tests/hooks/test_open_clip.py", "tests/src/test_stream.py"),
    ),
    Named(
        "dictionary: decoder norm not undone in `decoder_of`",
        f"{_SOURCE}/sae/dictionary.py",
        "rows = rows / rows.norm(dim=-1, keepdim=True)",
        "rows = rows + 0.0",
        ("tests/src/sae/test_dictionary.py", "tests/src/sae/test_foreign_activations.py"),
    ),
    Named(
        "fast top-k and batch top-k: gradient passes through clipped zeros",
        f"{_SOURCE}/sae/architectures/sparse_step.py",
        "of_pre = of_values * (values > 0)",
        "of_pre = of_values * (values >= 0)",
        ("tests/src/sae/test_fast_topk.py", "tests/src/sae/test_fast_batchtopk.py"),
    ),
    Named(
        "steering: `dose_of_breach` interpolates from the other end",
        f"{_PLUGINS}/steering/effects.py",
        "return before.dose + part * (after.dose - before.dose)",
        "return after.dose - part * (after.dose - before.dose)",
        ("tests/plugins/steering/test_effects.py",),
    ),
    Named(
        'harvest: seed ignored for shuffle="local"',
        f"{_SOURCE}/store/plan.py",
        "here[_order(here, self.seed)]",
        "here[_order(here, 0)]",
        ("tests/src/store/test_harvest.py",),
    ),
    Named(
        "names: hubness not corrected",
        f"{_PLUGINS}/autointerp/nearest_word.py",
        "near = directions(block) @ words.T - common",
        "near = directions(block) @ words.T",
        ("tests/plugins/autointerp/test_vocabulary.py", "tests/plugins/autointerp/test_namers.py"),
    ),
    Named(
        "report: heat scaled by the sample's maximum",
        f"{_PLUGINS}/report/heat.py",
        "_level(heat, largest[k])",
        "_level(heat, float(heat.values.max(initial=0.0)))",
        ("tests/plugins/report",),
    ),
    Named(
        "gap: control one latent short",
        f"{_PLUGINS}/modality/gap_metric.py",
        "control[shared[order][: one_sided.sum()]] = True",
        "control[shared[order][: one_sided.sum() - 1]] = True",
        ("tests/plugins/modality/test_gap_metric.py",),
    ),
    Named(
        "WinRate: ties count as wins",
        f"{_PLUGINS}/monosemanticity/winrate.py",
        "return (plus > minus).astype(float)",
        "return (plus >= minus).astype(float)",
        ("tests/plugins/monosemanticity", "tests/golden"),
    ),
    Named(
        "intruder: ties count as hits",
        f"{_PLUGINS}/autointerp/ranks.py",
        "below = np.sort(np.where(self.valid, self.below, np.inf), axis=1)",
        "below = np.sort(np.where(self.valid, self.upto, np.inf), axis=1)",
        ("tests/plugins/autointerp/test_heldout.py",),
    ),
    Named(
        "intruder, asked of one latent: ties count as hits",
        f"{_PLUGINS}/autointerp/fit_questions.py",
        'of["silent"][0] < min(',
        'of["silent"][0] <= min(',
        ("tests/plugins/autointerp/test_heldout.py",),
    ),
    Named(
        "retrieved: ties count as hits",
        f"{_SOURCE}/run/targets.py",
        "found: np.ndarray = (own > best)",
        "found: np.ndarray = (own >= best)",
        ("tests/src/test_targets.py",),
    ),
    Named(
        "draw: a pair that just fits the budget is left out",
        f"{_PLUGINS}/modality/draw.py",
        "beyond = np.cumsum(size[order]) > self._firings",
        "beyond = np.cumsum(size[order]) >= self._firings",
        ("tests/plugins/modality",),
    ),
)
