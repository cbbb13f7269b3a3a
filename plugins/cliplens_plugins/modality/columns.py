"""What the modality columns of `latents.parquet` say. The same words stand in docs/metrics.md."""

from cliplens.records import Column

_PAPER = "Yan et al., arXiv 2502.14888; reimplementation"


def _score(name: str, about: str, source: str = _PAPER, nan: str = "never fires") -> Column:
    return Column(name, about, range="[0, 1]", nan=nan, source=source)


FIRING = (
    Column("alive", "Fired at least once on the pairs scored.", unit="bool"),
    Column("fire_image", "Share of images the latent fires on.", "fraction", "[0, 1]", nan="no images"),
    Column("fire_text", "Share of captions the latent fires on.", "fraction", "[0, 1]", nan="no captions"),
)
SCORES = (
    _score(
        "mds",
        "Modality Dominance Score: mean share of the image in a pair's activation, over pairs where the latent fires. "
        "0 = captions only, 1 = images only.",
    ),
    _score("mds_half", "The Modality Dominance Score with silent pairs counted as one half."),
    _score(
        "mds_eps",
        "The Modality Dominance Score with an epsilon in the denominator and silent pairs counted as 0; "
        "kept to show how that fails on sparse codes.",
    ),
    _score(
        "mds_ratio_of_means",
        "Mean image activation over the sum of both means.",
        "Papadimitriou et al., arXiv 2504.11695",
    ),
    _score(
        "energy",
        "Mean squared image activation over the sum of both; outside [.05, .95] called unimodal by its authors.",
        "Dhimoila et al., arXiv 2602.06218",
    ),
    _score("mds_firing", "Image firing rate over the sum of both.", "ours", "never fires above 0"),
    Column(
        "cofiring",
        "Phi between firing on the image and firing on the caption of a pair; 0 where one side never fires.",
        range="[-1, 1]",
        nan="never fires",
    ),
)
CLASS_COLUMNS = (
    Column(
        "modality",
        "Class by fixed cuts: mds below 0.2 TextD, above 0.8 ImgD, else CrossD; dead where it never fires.",
    ),
    Column(
        "modality_paper",
        "Class by the paper's rule: beyond one standard deviation from the mean of living latents. "
        "It always finds some dominant latents, whatever the model.",
        source=_PAPER,
    ),
)
UNCERTAINTY = (
    Column("mds_pairs", "Pairs on which the latent fires in at least one modality: what mds rests on.", unit="pairs"),
    Column("mds_pictures", "Distinct pictures among those pairs.", unit="pictures"),
    Column(
        "mds_effective",
        "Independent pairs that would say as much of mds: fewer than mds_pairs where several pairs show one picture.",
        unit="pairs",
        nan="never fires",
    ),
    Column("mds_low", "Lower end of the 95 % interval of mds.", range="[0, 1]", nan="never fires"),
    Column("mds_high", "Upper end of the 95 % interval of mds.", range="[0, 1]", nan="never fires"),
    Column(
        "mds_interval",
        "How the interval was made: percentile (bootstrap over pictures), or wilson, the flag for fewer than 200 "
        "pictures or fewer than 10 expected on the minor side, where percentiles would promise too much.",
    ),
    Column(
        "mds_q",
        "False discovery rate (Benjamini-Hochberg) at which mds differs from one half, were image and caption "
        "exchangeable.",
        range="[0, 1]",
        nan="never fires",
    ),
    Column(
        "modality_significant",
        "ImgD where mds_q is at most .05 and the whole interval lies above 0.8, TextD likewise below 0.2, CrossD where "
        "the whole interval lies from 0.2 to 0.8 and both modalities fire, else undecided; dead where it never fires.",
    ),
)
TRUTH = (
    Column(
        "truth",
        "Factor value the latent's activation correlates with best, as factor=value; "
        "empty where no correlation reaches .35.",
    ),
    Column(
        "truth_modality",
        "Modality of that factor: CrossD (seen and said), ImgD (never said), TextD (never seen); empty: no label.",
    ),
    Column(
        "truth_correlation",
        "The correlation that gave the label, or the best there was.",
        range="[-1, 1]",
        nan="never fires on the labelling half",
    ),
)
