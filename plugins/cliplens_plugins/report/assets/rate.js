"use strict";
// Blind rating: no class, no score and no firing stands in this file, so that none can be peeked at.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id), KEY = "cliplens-ratings-" + data.run + "-" + data.seed;
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const QUESTIONS = [
    ["concept", "Is this one concept?", [["yes", "Yes, one"], ["partly", "Partly"], ["no", "No"]]],
    ["modality", "Where is it?", [["image", "In the pictures"], ["text", "In the captions"], ["both", "In both"], ["unsure", "I cannot say"]]],
    ["name", null, [["right", "Right"], ["partly", "Partly"], ["wrong", "Wrong"]]],
  ];
  let kept = {};
  try { kept = JSON.parse(localStorage.getItem(KEY)) || {}; } catch { /* a file may have no storage: answers last as long as the page */ }
  const state = { rater: kept.rater || "", answers: kept.answers || {}, at: 0 };
  const firstOpen = data.cards.findIndex((card) => !complete(card));
  state.at = firstOpen < 0 ? 0 : firstOpen;
  $("rater").value = state.rater;

  function asked(card) { return QUESTIONS.filter(([key]) => key !== "name" || card.name !== null); }
  function complete(card) { const given = state.answers[card.latent] || {}; return asked(card).every(([key]) => given[key]); }
  function keep() { try { localStorage.setItem(KEY, JSON.stringify({ rater: state.rater, answers: state.answers })); } catch { /* as above */ } }
  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) name.startsWith("on") ? element.addEventListener(name.slice(2), value) : element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  function show() {
    const card = data.cards[state.at], given = state.answers[card.latent] || {};
    $("pairs").replaceChildren(...card.pairs.map((pair) => h("li", {}, ...(pair.picture ? [h("img", { src: pair.picture, alt: pair.caption || "picture without caption" })] : []), h("span", {}, pair.caption || ""))));
    let key = 0;
    $("questions").replaceChildren(...asked(card).map(([name, words, answers]) => h("fieldset", {}, h("legend", {}, words || `It was named “${card.name}”. Is this name correct?`),
      h("div", { class: "answers" }, ...answers.map(([value, says]) => {
        const input = h("input", { type: "radio", name, value, id: name + "-" + value, "data-key": ++key % 10, onchange: () => answer(name, value) });
        input.checked = given[name] === value;
        return h("label", {}, input, ...(key <= 10 ? [h("kbd", {}, String(key % 10))] : []), says);
      })))));
    const done = data.cards.filter(complete).length;
    $("progress").textContent = `${state.at + 1} of ${data.cards.length}, ${done} answered`;
    $("done").style.width = 100 * done / data.cards.length + "%";
    $("back").disabled = state.at === 0;
    $("next").disabled = state.at === data.cards.length - 1;
  }
  function answer(name, value) {
    const card = data.cards[state.at];
    state.answers[card.latent] = { ...state.answers[card.latent], [name]: value };
    keep();
    show();
  }
  function move(by) { state.at = Math.min(data.cards.length - 1, Math.max(0, state.at + by)); show(); scrollTo(0, 0); }
  function save() {
    const content = { format: data.format, run: data.run, seed: data.seed, rater: state.rater || "anonymous", saved: new Date().toISOString(), answers: state.answers };
    const link = h("a", { href: URL.createObjectURL(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" })), download: `ratings-${(state.rater || "anonymous").replace(/[^\w-]+/g, "_")}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  $("rater").addEventListener("input", () => { state.rater = $("rater").value.trim(); keep(); });
  $("back").addEventListener("click", () => move(-1));
  $("next").addEventListener("click", () => move(1));
  $("save").addEventListener("click", save);
  $("questions").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("keydown", (event) => {
    if (event.target.id === "rater" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") { event.preventDefault(); move(event.key === "ArrowRight" ? 1 : -1); }
    else if (event.key === "s") save();
    else if (/^[0-9]$/.test(event.key)) document.querySelector(`[data-key="${event.key}"]`)?.click();
  });
  show();
})();
