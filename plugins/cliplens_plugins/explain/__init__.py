"""Draw why an image and a caption match, and where a latent acts (`cliplens explain`)."""

from cliplens_plugins.explain.latent import explain_latent as explain_latent
