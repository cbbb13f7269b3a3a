"""What each table of the report says, in one line, and plain words for the names of its columns and figures."""

from typing import Any

LEGENDS = {
    "Strongest bridges": "An image latent and a caption latent that fire on the same pairs, as where a dictionary split one "
    "concept. High: the two rows of the decoder agree too. Open both and compare their samples.",
    "EmbSim and WinRate": "How alike the top samples of a latent are by a judge, and how often they beat random samples. "
    "Good: near 1, and far above the untrained dictionary in Controls. The judge 'clip' is the model itself.",
    "Fidelity of the dictionary": "How much of the activations the dictionary rebuilds, with how many firing latents (L0). "
    "Compare dictionaries at equal L0 only.",
    "Modality gap": "How far the embeddings of images and captions lie apart, with and without the latents of one modality. "
    "A wide gap splits shared concepts into two latents, and MDS is then no guide.",
    "Recovery of the true modality": "How well each score finds the modality of a latent where the truth is known. "
    "AUROC 0.5 is chance, 1 is perfect.",
    "Coverage of the factors": "How many values of the known factors have a latent of their own. Good: all of them, each with "
    "few latents.",
    "Information of image and caption": "What the firing on image and caption says about a target: each alone, either "
    "(redundancy), only both together (synergy). Compare with the shuffled columns; values near those say nothing.",
    "Modality classes": "How many latents each rule puts into each class. Trust 'significant' where classes are counted.",
    "Monosemanticity": "How alike the samples are on which a latent fires, weighted by activation, in [-1, 1]. Good: far above "
    "the control.",
    "Tests of names on held-out samples": "Whether the name of a latent tells on new samples where it fires. 0.5 is chance; "
    "shuffled names are the control. Good: the whole interval above that of shuffled names.",
    "Tests of names by asking": "Whether a language model, given only the name, tells on which samples a latent fires. Compare "
    "with shuffled names.",
    "Controls": "Each figure with its value where there is nothing to find: a random dictionary, random pairs, or other "
    "controls.",
    "Downstream": "What the model still does with the dictionary in its place. Recovered: 1 is the model itself, 0 is ablation.",
    "Found again": "The share of latents that another dictionary has too. Compare with the chance columns.",
    "Same top": "Pairs of latents with nearly the same top samples, so perhaps duplicates.",
    "Top ": "Latents whose top samples lie within those of a broader one.",
    "Decision per concept": "Whether to collect images, to rewrite captions, or neither, per concept.",
    "Skew of rankings": "Whether rankings prefer a group. 0 is no preference.",
    "Leakage": "What a probe still reads of the attribute after the change. AUC 0.5: nothing is left.",
    "Latents that carry": "In which modality classes the latents lie that tell the groups apart.",
    "Planted bias": "Whether rate and modality of a bias of known size are found again.",
    "Shapley": "What each class of latents adds to a task, over all orders of adding them. The rows add up to the whole.",
    "Another question": "A different measure of the same task. It need not agree with the first table.",
    "Removal": "What is lost when a class of latents is removed, beside as many random latents.",
}
"""One line by the beginning of a table's title: what it says, and what is good."""

HEADS = {
    "l0": "firing latents per sample (L0)",
    "m": "top samples",
    "embsim": "similarity (EmbSim)",
    "winrate": "wins over random (WinRate)",
    "explained_variance": "explained variance",
    "explained_variance_legacy": "mean of ratios (legacy)",
    "dead_fraction": "share of dead latents",
    "centroid": "distance of the means",
    "separable": "accuracy of telling them apart",
    "energy": "share of energy between the means",
    "auroc": "AUROC",
    "accuracy_fixed": "accuracy, fixed cuts",
    "accuracy_paper": "accuracy, the paper's rule",
    "low": "lower limit",
    "high": "upper limit",
    "against": "control",
    "control": "value of the control",
}
"""Plain words for columns."""

VALUES = {
    "untrained": "untrained dictionary",
    "permuted": "permuted pairs",
    "frozen": "frozen random decoder",
    "shuffled": "model with shuffled weights",
    "reseeds": "other seeds",
    "i_min": "minimum of the two (i_min)",
    "pairs": "MDS, mean over pairs",
    "half": "MDS, silent pairs as one half",
    "eps": "MDS, epsilon in the denominator",
    "ms_image": "monosemanticity on images",
    "ms_text": "monosemanticity on captions",
    "mms": "monosemanticity across modalities",
    "embsim_image": "EmbSim on images",
    "embsim_text": "EmbSim on captions",
    "embsim_cross": "EmbSim across modalities",
    "winrate_image": "WinRate on images",
    "winrate_text": "WinRate on captions",
    "winrate_cross": "WinRate across modalities",
    "explained_variance": "explained variance",
    "explained_variance_image": "explained variance of images",
    "explained_variance_text": "explained variance of captions",
    "single_modality_share": "share of ImgD and TextD",
}
"""Plain words for short names in the first two columns of a table."""


def legend(title: str) -> str:
    """Return the line that explains a table; empty where its study explains it.

    >>> legend("Modality gap")[:20]
    'How far the embeddin'
    """
    return next((text for start, text in LEGENDS.items() if title.startswith(start)), "")


def head(name: str) -> str:
    """Return the name of a column in plain words.

    >>> head("dead_fraction"), head("mean_cosine")
    ('share of dead latents', 'mean cosine')
    """
    return HEADS.get(name, name.replace("_", " "))


def plain(value: Any) -> Any:
    """Return a short name in plain words, and any other value as it is.

    >>> plain("ms_image"), plain("ImgD"), plain(3)
    ('monosemanticity on images', 'ImgD', 3)
    """
    return VALUES.get(value, value) if isinstance(value, str) else value
