"""Describe the modality columns of `latents.parquet`; docs/metrics.md describes them too."""

from cliplens.records import Column

_PAPER = "Yan et al., arXiv 2502.14888; reimplementation"


def _score(name: str, about: str, source: str = _PAPER, nan: str = "never fires") -> Column:
    return Column(name, about, range="[0, 1]", nan=nan, source=source)


FIRING = (
    Column("alive", "Whether the latent fires at least once on the scored pairs.", unit="bool"),
    Column("fire_image", "Share of images on which the latent fires.", "fraction", "[0, 1]", nan="no images"),
    Column("fire_text", "Share of captions on which the latent fires.", "fraction", "[0, 1]", nan="no captions"),
)
SCORES = (
    _score(
        "mds",
        "Modality Dominance Score: mean of |I| / (|I| + |T|) over the pairs on which the latent fires; I and T are its "
        "activations on image and caption. 0 = captions only, 1 = images only.",
    ),
    _score("mds_half", "The Modality Dominance Score with silent pairs counted as one half."),
    _score(
        "mds_eps",
        "The Modality Dominance Score with an epsilon in the denominator and silent pairs counted as 0; "
        "included to show that it fails on sparse codes.",
    ),
    _score(
        "mds_ratio_of_means",
        "Mean image activation, divided by the sum of mean image and mean caption activation.",
        "Papadimitriou et al., arXiv 2504.11695",
    ),
    _score(
        "energy",
        "Mean squared image activation, divided by the sum of both mean squares; its authors call a latent unimodal "
        "outside [.05, .95].",
        "Dhimoila et al., arXiv 2602.06218",
    ),
    _score("mds_firing", "Image firing rate, divided by the sum of both rates.", "ours", "never fires above 0"),
    Column(
        "cofiring",
        "Phi coefficient between firing on the image and firing on the caption of a pair; 0 if the latent fires on all "
        "or none of the images, or of the captions.",
        range="[-1, 1]",
        nan="never fires",
    ),
)
CLASS_COLUMNS = (
    Column(
        "modality",
        "Class by fixed cuts: TextD if mds < 0.2, ImgD if mds > 0.8, else CrossD; dead if the latent never fires.",
    ),
    Column(
        "modality_paper",
        "Class by the paper's rule: ImgD or TextD if mds is more than one standard deviation from the mean of the "
        "living latents. The rule finds dominant latents in any model.",
        source=_PAPER,
    ),
)
UNCERTAINTY = (
    Column("mds_pairs", "Number of pairs on which the latent fires, over which mds is the mean.", unit="pairs"),
    Column("mds_pictures", "Number of distinct pictures among those pairs.", unit="pictures"),
    Column(
        "mds_effective",
        "Effective number of independent pairs: below mds_pairs where several pairs show the same picture.",
        unit="pairs",
        nan="never fires",
    ),
    Column("mds_low", "Lower limit of the 95 % confidence interval of mds.", range="[0, 1]", nan="never fires"),
    Column("mds_high", "Upper limit of the 95 % confidence interval of mds.", range="[0, 1]", nan="never fires"),
    Column(
        "mds_interval",
        "Method of the interval: percentile (bootstrap over pictures), or wilson if the latent fires on fewer than 200 "
        "pictures or on fewer than 10 expected in its minor modality, where percentile intervals are too narrow.",
    ),
    Column(
        "mds_q",
        "False discovery rate (Benjamini-Hochberg) of the test that mds differs from 1/2; the null hypothesis is that "
        "image and caption are exchangeable.",
        range="[0, 1]",
        nan="never fires",
    ),
    Column(
        "modality_significant",
        "ImgD if mds_q <= .05 and the whole interval is above 0.8; TextD likewise below 0.2; CrossD if the whole "
        "interval is in [0.2, 0.8] and the latent fires in both modalities; dead if it never fires; else undecided.",
    ),
)
TRUTH = (
    Column(
        "truth",
        "Factor value with which the latent's activation correlates best, as factor=value; empty if no correlation "
        "reaches .35.",
    ),
    Column(
        "truth_modality",
        "Modality of that factor: CrossD (in images and captions), ImgD (only in images), TextD (only in captions); "
        "empty without a label.",
    ),
    Column(
        "truth_correlation",
        "Best correlation with a factor value, whether or not it gives a label.",
        range="[-1, 1]",
        nan="never fires on the labelling half",
    ),
)
