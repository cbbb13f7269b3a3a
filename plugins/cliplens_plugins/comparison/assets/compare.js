"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.querySelector(".figures-of tbody");
  const baseline = document.getElementById("baseline");
  const only = document.getElementById("only");
  const told = document.getElementById("told");
  const number = (value) => (value === null ? "–" : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(3));
  const titles = Object.fromEntries([...document.querySelectorAll("[data-sort]")].map((b) => [b.dataset.sort, b.textContent]));

  const between = (row, figure) => data.differences.find((d) => d.figure === figure &&
    ((d.first === row && d.second === baseline.value) || (d.second === row && d.first === baseline.value)));

  const mark = () => {
    let different = 0;
    for (const row of table.rows) {
      row.classList.toggle("baseline", row.dataset.name === baseline.value);
      for (const cell of row.querySelectorAll("[data-figure]")) {
        const place = cell.querySelector(".mark");
        if (!place) continue;
        place.textContent = "";
        place.className = "mark";
        place.title = "";
        const found = baseline.value && row.dataset.name !== baseline.value ? between(row.dataset.name, cell.dataset.figure) : null;
        if (!found) continue;
        const up = (found.first === row.dataset.name) === (found.difference > 0);
        const is = found.verdict === "different";
        different += is;
        place.textContent = is ? (up ? "▲" : "▼") : data.marks[found.verdict];
        place.classList.add(is ? "different" : "none");
        place.title = found.verdict + (found.why ? ": " + found.why : "");
      }
    }
    for (const dot of document.querySelectorAll(".dot")) dot.classList.toggle("chosen", dot.dataset.name === baseline.value);
    told.textContent = baseline.value ? different + (different === 1 ? " figure is" : " figures are") + " different" : "";
  };

  const list = () => {
    const body = document.querySelector(".differences tbody");
    body.replaceChildren();
    const shown = data.differences.filter((d) => !only.checked || d.verdict === "different");
    for (const d of shown) {
      const row = body.insertRow();
      if (d.verdict !== "different") row.className = "noise";
      const interval = d.low === null ? "–" : number(d.low) + " to " + number(d.high);
      const verdict = data.marks[d.verdict] + " " + d.verdict + (d.why ? ": " + d.why : "");
      for (const text of [titles[d.figure], d.first, d.second, number(d.difference), interval, number(d.reseed_bound), verdict]) {
        row.insertCell().textContent = text;
      }
      for (const n of [3, 4, 5]) row.cells[n].className = "num";
    }
    document.getElementById("none").hidden = shown.length > 0;
  };

  let sorted = null;
  const sort = (figure) => {
    const turn = sorted === figure;
    sorted = turn ? null : figure;
    const value = (row) => {
      const cell = row.querySelector('[data-figure="' + figure + '"]');
      return cell && cell.dataset.value !== undefined ? Number(cell.dataset.value) : -Infinity;
    };
    const rows = [...table.rows];
    rows.sort((a, b) => figure === "name" ? a.dataset.name.localeCompare(b.dataset.name) : value(b) - value(a));
    table.append(...(turn ? rows.reverse() : rows));
  };

  baseline.addEventListener("change", mark);
  only.addEventListener("change", list);
  for (const button of document.querySelectorAll("[data-sort]")) button.addEventListener("click", () => sort(button.dataset.sort));
  for (const dot of document.querySelectorAll(".dot")) {
    dot.addEventListener("click", () => { baseline.value = dot.dataset.name; mark(); });
    dot.addEventListener("keydown", (e) => { if (e.key === "Enter") { baseline.value = dot.dataset.name; mark(); } });
  }
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  mark();
  list();
})();
