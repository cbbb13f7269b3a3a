"""Export a run for other tools: Neuronpedia, the Hugging Face hub, tables as CSV or parquet.

Everything is written to a local folder. Only `cliplens export huggingface --push NAME` uploads it.
"""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.export.huggingface import export_huggingface as export_huggingface
    from cliplens_plugins.export.neuronpedia import export_neuronpedia as export_neuronpedia
    from cliplens_plugins.export.tables import export_table as export_table

export_lazily(__name__)
