"""The bridge between image and caption latents (Papadimitriou et al., arXiv 2504.11695):

    B[j, k] = E[I_j T_k] * <D_j, D_k>

how much latent j on the image and latent k on its caption fire together, and how near their decoder rows are. Kept
sparse: only latents that ever fired together have an entry, and of each latent only the strongest partner is reported:
for an ImgD latent among the TextD ones, and back.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from cliplens.contracts import Metric
from cliplens.errors import InputError
from cliplens.records import Batch, Column, Findings, PairedCodes, SparseCodes
from cliplens.tally import Sums
from cliplens_plugins.modality.classes import classify_fixed
from cliplens_plugins.modality.mds import VARIANTS
from cliplens_plugins.modality.sums import add_pairs

STRONGEST = 20
_BUFFER = 1 << 20
_SOURCE = "Papadimitriou et al., arXiv 2504.11695"
_COLUMNS = (
    Column(
        "bridge_partner",
        "Of an ImgD latent the TextD latent it bridges to best, of a TextD latent the ImgD one; -1: neither, or none.",
        source=_SOURCE,
    ),
    Column("bridge", "Strength of that bridge: E[I_j T_k] <D_j, D_k>.", nan="no partner", source=_SOURCE),
)


def bridge(
    image_codes: Float[Tensor, "pair d_sae"],
    text_codes: Float[Tensor, "pair d_sae"],
    decoder: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "d_sae d_sae"]:
    """The whole bridge matrix, float64: for small dictionaries. Range: any number; 0 where two never fire together."""
    together = image_codes.double().T @ text_codes.double() / len(image_codes)
    return together * (decoder.double() @ decoder.double().T)


class Products:
    """sum over pairs of I_j T_k as a sparse matrix: only (j, k) that fired together are held."""

    def __init__(self) -> None:
        self.n_pairs = 0
        self._held: csr_array | None = None
        self._waiting: list[csr_array] = []
        self._n_waiting = 0

    @property
    def held(self) -> csr_array | None:
        """The sums, [image latent, text latent]; None before the first batch."""
        self._settle()
        return self._held

    def update(self, codes: PairedCodes) -> None:
        """Take in a batch."""
        assert codes.image is not None
        assert codes.text is not None
        self._add((_matrix(codes.image).T @ _matrix(codes.text)).tocsr(), len(codes))

    def merge(self, other: "Products") -> None:
        """Take in another's."""
        if other.held is not None:
            self._add(other.held, other.n_pairs)

    def state(self) -> dict[str, Tensor]:
        """The entries held."""
        if self.held is None:
            return {}
        held = self.held.tocoo()
        place = np.stack([held.row, held.col]).astype(np.int64)
        size = torch.tensor([self.n_pairs, held.shape[0]])
        return {"size": size, "place": torch.as_tensor(place), "products": torch.as_tensor(held.data.copy())}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        fresh = Products()
        if state:
            n_pairs, d_sae = (int(x) for x in state["size"])
            rows, columns = state["place"].cpu().numpy()
            fresh._add(csr_array((state["products"].cpu().numpy(), (rows, columns)), shape=(d_sae, d_sae)), n_pairs)
        self.__dict__.update(fresh.__dict__)

    def _add(self, products: csr_array, n_pairs: int) -> None:
        self.n_pairs += n_pairs
        self._waiting.append(products)
        self._n_waiting += products.nnz
        # Adding to a large matrix costs as much as the matrix is large: wait until what is added is as large.
        if self._n_waiting > max(_BUFFER, 0 if self._held is None else self._held.nnz):
            self._settle()

    def _settle(self) -> None:
        for products in self._waiting:
            self._held = products if self._held is None else (self._held + products).tocsr()
        self._waiting, self._n_waiting = [], 0


class BridgeMetric(Metric):
    """The strongest bridges between ImgD and TextD latents (classes by the fixed cuts)."""

    name: ClassVar[str] = "bridge"
    needs: ClassVar[frozenset[Literal["pairs", "judge", "truth"]]] = frozenset({"pairs"})

    def __init__(self) -> None:
        self._products = Products()
        self._sums = Sums()

    def update(self, batch: Batch) -> None:
        """Take one batch in."""
        self._products.update(batch.codes)
        add_pairs(self._sums, batch.codes)

    def merge(self, other: Metric) -> None:
        """Take in what another instance has seen."""
        if not isinstance(other, BridgeMetric):
            raise InputError(
                expected="another BridgeMetric", found=type(other).__name__, do="merge metrics of one kind"
            )
        self._products.merge(other._products)
        self._sums.merge(other._sums)

    def state(self) -> dict[str, Tensor]:
        """Products and sums."""
        products = {f"products.{k}": v for k, v in self._products.state().items()}
        return {**products, **{f"sums.{k}": v for k, v in self._sums.state().items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for prefix, part in (("products.", self._products), ("sums.", self._sums)):
            part.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Each dominant latent's partner, and the strongest bridges."""
        products = self._products.held
        if products is None or decoder is None:
            return Findings(notes=("Bridges need pairs and the dictionary's decoder.",))
        classes = classify_fixed(VARIANTS["pairs"](self._sums).cpu().numpy())
        between = products.tocoo()
        wanted = (classes[between.row] == "ImgD") & (classes[between.col] == "TextD")
        image, text = between.row[wanted], between.col[wanted]
        rows = decoder.double().cpu().numpy()
        near = np.einsum("nd,nd->n", rows[image], rows[text])
        strength = between.data[wanted] / self._products.n_pairs * near
        partner, best = np.full(len(rows), -1), np.full(len(rows), np.nan)
        for one, other in ((image, text), (text, image)):
            order = np.lexsort((other, -strength))
            latents, first = np.unique(one[order], return_index=True)
            partner[latents], best[latents] = other[order][first], strength[order][first]
        order = np.lexsort((text, image, -strength))[:STRONGEST]
        table = [
            {"image latent": int(image[n]), "text latent": int(text[n]), "bridge": float(strength[n])} for n in order
        ]
        tables = {"Strongest bridges from images to captions": table} if table else {}
        return Findings({"bridge_partner": partner, "bridge": best}, _COLUMNS, {}, tables)


def _matrix(codes: SparseCodes) -> csr_array:
    entries = codes.values.detach().double().cpu().numpy(), (codes.rows.cpu().numpy(), codes.latents.cpu().numpy())
    return csr_array(entries, shape=(codes.n_rows, codes.d_sae))
