"""Two processes, each with half of the batches, end with the table one process has."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from cliplens.records import Pair
from cliplens.tally import TopSamples, all_reduce, shards, tally
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality import ModalityMetric
from support.planted import batches_of, planted_codes


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    where = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    planted = planted_codes(400, 6, dead=2)
    samples = TopSamples("image", 5)

    def mine() -> object:
        for batch in shards(batches_of(planted, 50)):
            samples.update(batch)
            yield batch

    found = tally(mine(), [ModalityMetric(), FidelityMetric()], decoder=None)  # type: ignore[arg-type]
    all_reduce([samples])
    kept = samples.exemplars({i: Pair(i, None, i) for i in planted.ids})
    found.table.save(Path(folder) / f"{rank}.parquet")
    np.savez(Path(folder) / f"{rank}.npz", at=kept.at, values=kept.values, ids=[p.id for p in kept.pairs])
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_table_of_one(tmp_path: Path) -> None:
    from cliplens.records import LatentTable

    mp.start_processes(_work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    planted = planted_codes(400, 6, dead=2)
    samples = TopSamples("image", 5)
    for batch in batches_of(planted, 50):
        samples.update(batch)
    alone = tally(batches_of(planted, 50), [ModalityMetric(), FidelityMetric()], decoder=None).table
    kept = samples.exemplars({i: Pair(i, None, i) for i in planted.ids})
    first, second = (LatentTable.load(tmp_path / f"{rank}.parquet") for rank in (0, 1))
    for name, values in alone.columns.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(first[name], values, rtol=1e-12, atol=1e-12)
            np.testing.assert_array_equal(first[name], second[name])
        else:
            assert first[name].tolist() == values.tolist() == second[name].tolist()
    for rank in (0, 1):
        held = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_array_equal(held["at"], kept.at)
        np.testing.assert_array_equal(held["values"], kept.values)
        assert held["ids"].tolist() == [p.id for p in kept.pairs]


@pytest.mark.parametrize(("old", "new"), [("distributed", "is_distributed"), ("shards", "shards")])
def test_helpers_of_groups_moved_to_one_home(old: str, new: str) -> None:
    from cliplens import distributed
    from cliplens.tally import reduce

    with pytest.warns(DeprecationWarning, match=f"cliplens.distributed.{new}"):
        assert getattr(reduce, old) is getattr(distributed, new)
