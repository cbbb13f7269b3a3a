"""How fast is a report in a real browser? First paint, scrolling, sorting and searching, from a local file.

    python benchmarks/report_browser.py --report RUN/report.html [--rounds 5]

Needs chromium, chromedriver and selenium. The browser renders in software, so machines with a GPU are faster.
"""

import os
import shutil
from pathlib import Path
from statistics import median
from typing import Any

from _bench import bench

PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
READY = "return performance.getEntriesByType('navigation')[0].domComplete"
SCROLL = """
const done = arguments[0], times = [];
let last = performance.now(), y = document.getElementById('latents').offsetTop;
function frame(now) {
  times.push(now - last); last = now; y += 120; scrollTo(0, y);
  if (times.length < 120) requestAnimationFrame(frame); else done(times.slice(5));
}
requestAnimationFrame(frame);
"""
SORT = "const e = document.getElementById('sort'); e.value = arguments[0]; const t = performance.now(); e.dispatchEvent(new Event('change')); return performance.now() - t"  # noqa: E501
SEARCH = "const e = document.getElementById('search'); e.value = arguments[0]; const t = performance.now(); e.dispatchEvent(new Event('input')); return performance.now() - t"  # noqa: E501


def main() -> None:
    with bench(__file__, __doc__, report=Path("run/report.html"), rounds=5) as b:
        rounds = [measure(b.args.report) for _ in range(b.args.rounds)]
        b.table(
            f"A report of {b.args.report.stat().st_size / 1e6:.1f} MB",
            {"what": "", "median, ms": ".0f", "worst, ms": ".0f"},
        )
        for name in rounds[0]:
            values = [r[name] for r in rounds]
            b.row(name, median(values), max(values))


def measure(report: Path) -> dict[str, float]:
    """Measure a report in a new browser."""
    browser = driver()
    try:
        browser.get(report.resolve().as_uri())
        latents = browser.execute_script("return JSON.parse(document.getElementById('data').textContent).latents")
        found = {"first paint": browser.execute_script(PAINT), "whole page read": browser.execute_script(READY)}
        frames = sorted(browser.execute_async_script(SCROLL))
        found |= {
            "frame while scrolling, median": median(frames),
            "frame, 95th percentile": frames[int(0.95 * len(frames))],
        }
        found[f"sort of {latents} latents"] = browser.execute_script(SORT, "latent")
        found[f"search in {latents} names"] = browser.execute_script(SEARCH, "red")
        return found
    finally:
        browser.quit()


def driver() -> Any:
    """Return a headless chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    options.add_argument("--headless=new")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


if __name__ == "__main__":
    main()
