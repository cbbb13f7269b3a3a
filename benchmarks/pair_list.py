"""Measure the memory of a list of pairs and the time to read it.

    python benchmarks/pair_list.py [--pairs 3000000]

Each source is read in a new process (Linux only).
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import datasets

from _bench import bench
from cliplens.pairs import read_pairs
from cliplens.store.memory import trim_memory


def captions(count: int) -> Iterator[str]:
    """Return distinct captions of about 50 letters."""
    return (f"a photo of the small red dog number {i} on green grass" for i in range(count))


def csv_table(folder: Path, count: int) -> Path:
    with (folder / "set.csv").open("w") as file:
        file.write("image,caption\n")
        file.writelines(f"{i // 1000:05d}/{i:09d}.jpg,{said}\n" for i, said in enumerate(captions(count)))
    return folder / "set.csv"


def saved_dataset(folder: Path, count: int) -> Path:
    names = [f"{i // 1000:05d}/{i:09d}.jpg" for i in range(count)]
    made = datasets.Dataset.from_dict({"image": names, "id": names, "caption": list(captions(count))})
    made.save_to_disk(folder / "saved")
    return folder / "saved"


def tar_shard(folder: Path, count: int) -> Path:
    with tarfile.open(folder / "set.tar", "w") as tar:
        for i, said in enumerate(captions(count)):
            for ending, content in (("jpg", b"."), ("txt", said.encode())):
                member = tarfile.TarInfo(f"{i:09d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder / "set.tar"


SOURCES = {
    "a CSV table": (csv_table, 1),
    "a `datasets` folder, mapped": (saved_dataset, 1),
    "tar shards": (tar_shard, 10),
}
"""Function that writes each source, and a divisor of the number of pairs, because tars are slow to read."""


def main() -> None:
    datasets.disable_progress_bars()
    with bench(__file__, __doc__, pairs=3_000_000) as b:
        b.table(
            "The list of pairs",
            {"pairs of": "", "pairs": ",d"}
            | dict.fromkeys(("text, bytes a pair", "held in memory, bytes a pair", "at the peak"), ".0f")
            | dict.fromkeys(("read, s", "hashed, s"), ".1f"),
        )
        for name, (write, fewer) in SOURCES.items():
            count = b.args.pairs // fewer
            with tempfile.TemporaryDirectory() as folder:
                (few := Path(folder, "few")).mkdir()
                paths = [str(write(few, 10)), str(write(Path(folder), count))]
                code = f"from pair_list import read_list; read_list(*{paths!r})"
                done = subprocess.run(
                    [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
                )
            b.row(name, count, *(float(cell) for cell in done.stdout.split()))


def read_list(few: str, path: str) -> None:
    """Read pairs in this process, after a few to load all modules; print the cells of the table."""
    read_pairs(few)
    before, start = memory("RssAnon"), time.perf_counter()
    pairs = read_pairs(path)
    read = time.perf_counter() - start
    held, peak = memory("RssAnon") - before, memory("VmHWM") - memory("RssFile") - before
    start = time.perf_counter()
    assert pairs.sha256
    hashed = time.perf_counter() - start
    text = len(pairs) * (len(pairs.id_at(0)) + len(pairs.caption_at(0) or ""))
    print(*(count / len(pairs) for count in (text, held, peak)), read, hashed)


def memory(kind: str) -> int:
    """Return the memory of this process in bytes. RssAnon excludes mapped files; VmHWM is the peak including them."""
    trim_memory()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) * 1024


if __name__ == "__main__":
    main()
