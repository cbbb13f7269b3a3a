"""The text of the model card."""

CARD = """---
library_name: saelens
tags:
- sparse-autoencoder
- interpretability
- clip
- cliplens
---

# A dictionary over {{ asked.get("model", "CLIP") }}, {{ asked.get("hook", "") }}

{{ summary.get("d_sae", "") }} latents over images and captions in one dictionary, made by
[cliplens](https://arxiv.org/abs/2502.14888) with SAELens' own trainer ({{ asked.get("architecture", "") }}).

```python
from sae_lens import SAE
{% for id in ids if id != "shared" %}
sae = SAE.load_from_disk("{{ id }}")   # raw activations of the {{ "vision" if id == "image" else "text" }} tower
{% endfor %}
```

`shared/` is the same dictionary for activations whose modality mean was subtracted; the folder also holds the means.
Activations must come from the same weights and preprocessing: sha256 of the weights
`{{ model.get("weights_sha256", "unknown") }}`, of the preprocessing `{{ model.get("preprocess_sha256", "unknown") }}`.

| figure | value | control |
|---|---|---|
{% for name in ["pairs", "d_in", "d_sae", "alive", "l0", "explained_variance", "explained_variance_image",
 "explained_variance_text", "ImgD", "CrossD", "TextD", "named"] if name in summary %}
| {{ name.replace("_", " ") }} | {{ figure(summary[name]) }} | {{ control(name) }} |
{% endfor %}

A *control* is the same figure where there is nothing to find: an untrained dictionary of the same shape, or permuted
pairs.
{% if within %}
No evidence, because they are not above their control: {{ within | join(", ") }}.
{% endif %}

`latents.parquet` has one row per latent: modality scores, monosemanticity, names, and scores of the names on held-out
samples. The metadata of each column describes it. ImgD, CrossD and TextD are the classes by fixed cuts of a
reimplementation of the Modality Dominance Score.

This card does not state the licences of the pairs and of the model. Add them before you share this folder.
"""
