"""Draw why an image and a caption match, and where a latent acts (`cliplens explain`)."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.explain.latent import explain_latent as explain_latent

export_lazily(__name__)
