"""Write and check the hashes of a dictionary folder.

`sha256.json` contains the SHA-256 of each file of a dictionary: configuration, weights, means. Opening a dictionary
detects damaged, exchanged and missing files.
"""

import json
from pathlib import Path

from cliplens.errors import DamagedError
from cliplens.files import sha256_of
from cliplens.sae.config_file import read_config

HASHES = "sha256.json"


def write_hashes(folder: Path) -> None:
    """Write the SHA-256 of every file in the folder, without its subfolders, to `sha256.json`."""
    found = {p.name: sha256_of(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name != HASHES}
    (folder / HASHES).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def check_hashes(folder: Path) -> bool:
    """Check the files of a folder against its `sha256.json`; return False without one.

    Raises:
        DamagedError: a file is missing or was altered since it was written; the message names it.
    """
    if not (folder / HASHES).is_file():
        return False
    for name, expected in read_config(folder / HASHES).items():
        path = folder / Path(name).name
        if not path.is_file():
            raise DamagedError(
                expected=f"the file {name} of the dictionary in {folder}",
                found="no such file",
                fix="copy the whole folder again, or train the dictionary again",
            )
        found = sha256_of(path)
        if found != expected:
            raise DamagedError(
                expected=f"{path} as it was written, with hash {str(expected)[:12]}",
                found=f"altered content, with hash {found[:12]}",
                fix=f"copy the folder again, or delete {HASHES} if you changed the file on purpose",
            )
    return True
