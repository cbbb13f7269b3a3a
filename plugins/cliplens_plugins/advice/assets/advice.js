"use strict";
const rows = [...document.querySelectorAll("tr[data-id]")];
const count = document.getElementById("count");

function decide(row, verdict) {
  const now = row.classList.contains(verdict) ? "" : verdict;
  row.classList.remove("accept", "reject");
  if (now) row.classList.add(now);
  for (const button of row.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.className === now));
  }
  tell();
}

function tell() {
  const of = (verdict) => rows.filter((row) => row.classList.contains(verdict)).length;
  count.textContent = `${of("accept")} accepted, ${of("reject")} rejected of ${rows.length}`;
}

// A spreadsheet runs a cell that begins with one of these as a formula.
function cell(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
  return '"' + safe.replaceAll('"', '""') + '"';
}

function exported() {
  const heads = ["id", "list", "caption", "evidence"];
  const lines = rows
    .filter((row) => row.classList.contains("accept"))
    .map((row) => heads.map((head) => cell(row.dataset[head])).join(","));
  return [heads.join(","), ...lines].join("\r\n") + "\r\n";
}

for (const row of rows) {
  for (const button of row.querySelectorAll("button")) {
    button.addEventListener("click", () => decide(row, button.className));
  }
}
document.getElementById("export").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([exported()], { type: "text/csv" }));
  link.download = "pairs-to-mend.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
tell();
