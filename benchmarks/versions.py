"""Do chosen tests pass with the lowest and newest dependencies, on other Pythons, beside TransformerLens 4?

    python benchmarks/versions.py [--cases lowest newest ...] [--pythons 3.11 3.12 3.13 3.14] [--envs FOLDER]

Each case is an environment of its own, made by uv (`pip install uv`) from the package index and kept in `--envs`, some
6 GB each on Linux. `lowest` takes the lowest version of every dependency of every extra that the bounds in
pyproject.toml and the other packages allow; where that is not the bound itself, the table says so. `newest` takes what
`pip install` brings today. `transformer-lens-4` runs the tests of the hooks, which need no SAELens, and `saelens-shim`
those of the dictionaries in the same environment, with `_versions/saelens_shim.py` imported first. The tests of each
case are listed in `_versions/*.txt`. Cases that are not asked for keep their stored figures.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _bench import bench

ROOT = Path(__file__).parents[1]
SHIM = Path(__file__).parent / "_versions"
EXTRAS = ("dev", "judges")


def tests_of(name: str) -> list[str]:
    """Return the paths in a list of tests."""
    return (SHIM / f"{name}.txt").read_text().split()


TESTS = tests_of("every_dependency")
"""A short part of the tests that touches every dependency."""
HOOKS = tests_of("hooks")
"""The tests of the half that stands on TransformerLens alone."""
DICTIONARIES = tests_of("dictionaries")
"""The tests of the half that stands on SAELens."""


@dataclass(frozen=True)
class Case:
    """One environment and the tests to run in it."""

    name: str
    environment: str
    tests: Sequence[str]
    lowest: bool = False
    overrides: Sequence[str] = ()
    plugins: Sequence[str] = ()
    every_python: bool = False


FOUR = ("transformer-lens>=4,<5",)
CASES = (
    Case("lowest", "lowest", TESTS, lowest=True),
    Case("newest", "newest", TESTS, every_python=True),
    Case("transformer-lens-4", "transformer-lens-4", HOOKS, overrides=FOUR),
    Case("saelens-shim", "transformer-lens-4", DICTIONARIES, overrides=FOUR, plugins=("saelens_shim",)),
)


@dataclass
class Found:
    """The result of a case: versions installed, counts of tests, and the first line of each failure."""

    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    problem: str = ""


class CaseError(Exception):
    """An environment that could not be made; the message is the last line that was printed."""


def bounds() -> dict[str, str]:
    """Return the lower bound of each dependency of the project and its extras, by normalised name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(x for extra in EXTRAS for x in all_of(project, extra))]
    asked = {re.split(r"[<>=\[]", line)[0].lower().replace("_", "-"): re.search(r">=([\w.]+)", line) for line in lines}
    return {name: found[1] for name, found in sorted(asked.items()) if found}


def all_of(project: dict[str, Any], extra: str) -> list[str]:
    """Return the requirements of an extra, with those of the extras it names."""
    found = []
    for line in project["optional-dependencies"][extra]:
        own = re.fullmatch(r"cliplens\[(.+)\]", line)
        found += [x for name in own[1].split(",") for x in all_of(project, name)] if own else [line]
    return found


def resolved(case: Case, python: str, folder: Path, constraints: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions the resolver chooses, by name, and write them to requirements.txt.

    Raises:
        CaseError: there is no solution.
    """
    (folder / "constraints.txt").write_text("\n".join(constraints))
    (folder / "overrides.txt").write_text("\n".join(case.overrides))
    options = [f"--extra={extra}" for extra in EXTRAS]
    options += ["--resolution", "lowest-direct" if case.lowest else "highest", "--python-version", python]
    options += ["-c", str(folder / "constraints.txt"), "--override", str(folder / "overrides.txt")]
    out = folder / "requirements.txt"
    uv("pip", "compile", "-q", "pyproject.toml", *options, "--no-annotate", "--no-header", "-o", str(out))
    return dict(line.split("==") for line in out.read_text().split() if "==" in line)


def resolved_lowest(case: Case, python: str, folder: Path) -> dict[str, str]:
    """Return the lowest versions: pins each dependency to its bound, one by one, where the others allow it."""
    pins: list[str] = []
    found = resolved(case, python, folder)
    for name, bound in bounds().items():
        if is_at(found.get(name, ""), bound):
            continue
        try:
            found = resolved(case, python, folder, [*pins, f"{name}=={bound}.*"])
        except CaseError:
            continue
        pins.append(f"{name}=={bound}.*")
    return resolved(case, python, folder, pins)


def is_at(version: str, bound: str) -> bool:
    """Return whether a version is the bound or a patch of it."""
    held, least = version.split("."), bound.split(".")
    return [*held, *("0" for _ in least)][: len(least)] == least


def environment(case: Case, python: str, envs: Path) -> Path:
    """Return the Python of the environment of a case, made if it is missing.

    Raises:
        CaseError: no such Python, no solution, or a package that cannot be installed.
    """
    home = envs / f"{case.environment}-{python}"
    if not (home / "ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        uv("venv", "-q", "--no-python-downloads", "--python", python, str(home))
        (resolved_lowest if case.lowest else resolved)(case, python, home)
        inside = str(home / "bin" / "python")
        uv("pip", "install", "-q", "--python", inside, "--no-deps", "-r", str(home / "requirements.txt"))
        uv("pip", "install", "-q", "--python", inside, "--no-deps", "-e", str(ROOT))
        (home / "ready").touch()
    return home / "bin" / "python"


def uv(*arguments: str) -> None:
    """Run uv.

    Raises:
        CaseError: it failed.
    """
    path = shutil.which("uv")
    if path is None:
        raise SystemExit("Expected uv, but found none. Fix: pip install uv.")
    done = subprocess.run([path, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise CaseError(lines[-1][:300] if lines else f"uv ended with {done.returncode}")


def tested(case: Case, inside: Path, results: Path) -> Found:
    """Run the tests of a case and return what they gave."""
    report = results / "junit.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "--timeout=900", f"--junitxml={report}"]
    options += [part for plugin in case.plugins for part in ("-p", plugin)]
    paths = os.pathsep.join([str(SHIM), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    subprocess.run(
        [str(inside), "-m", "pytest", *options, *case.tests],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=False,
    )  # fmt: skip
    found = Found(versions=installed(inside), python=said(inside, "import platform; print(platform.python_version())"))
    if not report.exists():
        found.problem = "the tests did not start"
        return found
    suite = ET.parse(report).getroot()[0]
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    found.failed, found.skipped = counts["failures"] + counts["errors"], counts["skipped"]
    found.passed = counts["tests"] - found.failed - found.skipped
    found.seconds = float(suite.get("time", 0))
    for test in suite.iter("testcase"):
        for why in (*test.findall("failure"), *test.findall("error")):
            first = (why.get("message") or "").splitlines() or [""]
            found.failures.append(f"{test.get('classname')}::{test.get('name')}: {first[0][:200]}")
    return found


def installed(inside: Path) -> dict[str, str]:
    """Return the versions of the dependencies in an environment."""
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    held = {name.lower().replace("_", "-"): number for name, number in json.loads(said(inside, code)).items()}
    return {name: held[name] for name in bounds() if name in held}


def said(inside: Path, code: str) -> str:
    """Return what a line of Python prints in an environment."""
    return subprocess.run([str(inside), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def cases(asked: Sequence[str], pythons: Sequence[str]) -> list[tuple[Case, str]]:
    """Return the cases to run, each with its Python."""
    chosen = [case for case in CASES if not asked or case.name in asked]
    return [(case, python) for case in chosen for python in (pythons if case.every_python else pythons[:1])]


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of earlier calls, by case and Python."""
    path = folder / "versions.json"
    return dict(json.loads(path.read_text()).get("data", {}).get("cases", {})) if path.exists() else {}


def outcome(case: Case, python: str, envs: Path) -> Found:
    """Return what a case gave, or the reason why it did not run."""
    try:
        inside = environment(case, python, envs)
    except CaseError as error:
        return Found(python=python, problem=str(error).replace(str(envs), "ENVS"))
    return tested(case, inside, inside.parents[1])


if __name__ == "__main__":
    options = {
        "cases": ([], f"names of cases; all by default: {', '.join(case.name for case in CASES)}"),
        "pythons": (["3.11", "3.12", "3.13", "3.14"], "versions of Python; only `newest` runs on more than the first"),
        "envs": (".cache/versions", "folder of the environments"),
    }
    with bench(__file__, __doc__, **options) as b:
        envs = Path(b.args.envs).resolve()
        held = stored(Path(b.args.results))
        b.table("What ran", {"case": "", "Python": "", "passed": "", "failed": "", "skipped": "", "seconds": ".0f"})
        for case, python in cases(b.args.cases, b.args.pythons):
            held[f"{case.name}, Python {python}"] = vars(outcome(case, python, envs))
        for name, found in held.items():
            if not found["problem"]:
                b.row(
                    name, found["python"], found["passed"], found["failed"], found["skipped"], round(found["seconds"])
                )
        b.table("What did not run", {"case": "", "why": ""})
        for name, found in held.items():
            if found["problem"]:
                b.row(name, found["problem"])
        b.table("Tests that failed", {"case": "", "test": ""})
        for name, found in held.items():
            for failure in found["failures"]:
                b.row(name, failure)
        b.table("Versions", {"dependency": "", "bound": "", **dict.fromkeys(held, "")})
        for name, bound in bounds().items():
            b.row(name, bound, *(found["versions"].get(name, "-") for found in held.values()))
        b.keep("cases", held)
