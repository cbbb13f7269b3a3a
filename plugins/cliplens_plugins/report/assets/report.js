"use strict";
// The page's script: draws only the cards in view, so that thousands of latents cost what a dozen cost.
// Everything that comes from captions and names goes in through textContent or an attribute, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns, schema = data.schema, pairs = data.pairs;
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;
  const remembered = { get(k) { try { return localStorage.getItem(k); } catch { return null; } }, set(k, v) { try { localStorage.setItem(k, v); } catch { /* a file may have no storage */ } } };

  // ---- light and dark
  const dark = matchMedia("(prefers-color-scheme: dark)");
  function showTheme() { root.dataset.theme = remembered.get("cliplens-theme") || (dark.matches ? "dark" : "light"); }
  function switchTheme() { remembered.set("cliplens-theme", root.dataset.theme === "dark" ? "light" : "dark"); root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; }
  showTheme();
  dark.addEventListener("change", showTheme);
  $("theme").addEventListener("click", switchTheme);
  if (!data.latents) return;

  // ---- elements
  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "style") Object.assign(element.style, value);
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) element.append(child);
    return element;
  }
  function svg(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // ---- words and numbers
  const MISSING = "–", SPACE = "\u202f";
  const isNumber = (v) => typeof v === "number";
  function number(v) {
    if (v === null || v === undefined) return MISSING;
    if (typeof v === "boolean") return v ? "yes" : "no";
    if (!isNumber(v)) return String(v);
    if (Number.isInteger(v)) return String(v).replace(/\B(?=(\d{3})+$)/g, SPACE);
    const size = Math.abs(v);
    return size >= 1000 ? v.toFixed(0) : size >= 10 ? v.toFixed(1) : size >= 0.001 || size === 0 ? v.toFixed(3) : v.toExponential(1);
  }
  const percent = (v) => v === null || v === undefined ? MISSING : (100 * v >= 10 ? (100 * v).toFixed(0) : (100 * v).toFixed(v > 0 && v < 0.001 ? 2 : 1)) + SPACE + "%";
  const LABELS = { mds: "MDS", ms_image: "MS images", ms_text: "MS captions", mms: "MMS", cofiring: "Co-firing φ", energy: "Energy ratio", name_score: "Name score", name_agreement: "Names agree", name_image_score: "Name score, images", name_text_score: "Name score, captions", fire_image: "Fires on images", fire_text: "Fires on captions", latent: "Number", mds_q: "MDS q-value" };
  const label = (name) => LABELS[name] || name.replace(/_/g, " ");
  const cell = (name, k) => name in columns ? columns[name][k] : null;
  const className = (k) => cell("modality", k) || "none";
  const named = (v) => v && v !== "unnamed" ? v : null;
  const nameOf = (k) => named(cell("name", k)) || named(cell("name_image", k)) || named(cell("name_text", k));
  const exemplars = (modality, k) => {
    const flat = (data.exemplars[modality] || [])[k] || [], out = [];
    for (let i = 0; i < flat.length; i += 2) out.push({ pair: flat[i], value: flat[i + 1], modality, latent: k, rank: i / 2 });
    return out;
  };
  const numeric = Object.keys(columns).filter((name) => columns[name].some(isNumber) && columns[name].every((v) => v === null || isNumber(v)) && name !== "bridge_partner");
  if (!columns.latent) { columns.latent = Array.from({ length: data.latents }, (_, k) => k); numeric.push("latent"); }

  // ---- pictures: blocks of data URIs, parsed when first needed
  const blocks = [];
  function picture(index) {
    if (index < 0) return null;
    if (data.files.length) return data.files[index];
    const at = Math.floor(index / data.chunk);
    if (!blocks[at]) {
      const block = $("pictures-" + at);
      if (!block) return null; // the page is still being read
      blocks[at] = JSON.parse(block.textContent);
    }
    return blocks[at][index % data.chunk];
  }

  // ---- heat: where in a sample a latent fires, a character per patch or token
  const LEVELS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_", TOP_LEVEL = LEVELS.length - 1;
  const shares = (sample) => {
    const heat = data.heat[sample.modality], packed = heat && (heat.levels[sample.latent] || [])[sample.rank];
    return packed === undefined || packed === null ? null : Array.from(packed, (c) => LEVELS.indexOf(c) / TOP_LEVEL);
  };
  function hottest(values) { let best = 0; for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i; return best; }
  function patches(sample, frame) {
    const values = shares(sample);
    if (!values) return null;
    const [rows, cols] = data.heat.image.grid;
    const canvas = h("canvas", { class: "heat", width: cols, height: rows, "aria-hidden": "true" }), pen = canvas.getContext("2d");
    values.forEach((v, i) => { if (v > 0) { pen.fillStyle = `rgba(255, ${Math.round(150 - 120 * v)}, 0, ${0.06 + 0.42 * v})`; pen.fillRect(i % cols, Math.floor(i / cols), 1, 1); } });
    // The patches lie on what the model saw: the middle square of a picture that was cropped, all of one that was squashed.
    const place = (image) => {
      const wide = image.naturalWidth / image.naturalHeight, crop = data.heat.image.fit === "crop";
      const [w, t] = data.heat.image.fit === "squash" ? [Math.min(1, wide), Math.min(1, 1 / wide)] : crop ? [Math.min(1, wide, 1 / wide), Math.min(1, wide, 1 / wide)] : [1, 1];
      Object.assign(canvas.style, { width: 100 * w + "%", height: 100 * t + "%", left: 50 - 50 * w + "%", top: 50 - 50 * t + "%" });
    };
    const image = frame.querySelector("img");
    if (image && image.complete && image.naturalWidth) place(image); else if (image) image.addEventListener("load", () => place(image));
    return canvas;
  }
  function whereOn(sample) {
    const values = shares(sample);
    if (!values) return "";
    if (!values.length) return "; fires at no patch, only at the class token or over all together";
    const [, cols] = data.heat.image.grid, best = hottest(values);
    return `; fires most at patch ${Math.floor(best / cols) + 1} down, ${best % cols + 1} across`;
  }
  function words(sample, caption, k) {
    const values = state.heat ? shares(sample) : null, spans = values && data.heat.text.spans[sample.pair];
    if (!values || !values.length || !spans) return marked(caption, k);
    const parts = [], largest = data.heat.text.largest[k];
    let at = 0;
    values.forEach((v, i) => {
      const [start, end] = [spans[2 * i], spans[2 * i + 1]];
      if (end <= start || start < at) return;
      if (start > at) parts.push(caption.slice(at, start));
      parts.push(v > 0 ? h("span", { class: "token", title: "activation " + number(v * largest), style: { backgroundColor: `color-mix(in srgb, var(--text) ${Math.round(10 + 36 * v)}%, transparent)` } }, caption.slice(start, end)) : caption.slice(start, end));
      at = end;
    });
    parts.push(caption.slice(at));
    return parts;
  }

  // ---- one card
  function pictureItem(sample, strongest, big) {
    const caption = pairs.caption[sample.pair], source = picture(pairs.picture[sample.pair]);
    const says = (caption || pairs.id[sample.pair]);
    const shown = source ? h("span", { class: "frame" }, h("img", { src: source, alt: says + whereOn(sample), title: says + "\nactivation " + number(sample.value) + whereOn(sample), decoding: "async", loading: data.files.length ? "lazy" : null })) : h("span", { class: "gone", title: says }, "no picture");
    if (source && state.heat) { const heat = patches(sample, shown); if (heat) shown.append(heat); }
    const level = h("span", { class: "level", style: { width: 100 * Math.max(0.03, sample.value / strongest) + "%" } });
    return h("li", { class: "picture" }, shown, level, big ? [h("div", { class: "saying" }, says), h("div", { class: "value" }, number(sample.value))] : null);
  }
  // The words of a latent's names, wherever they stand in a caption, as <mark>.
  function marked(caption, k) {
    const names = new Set([cell("name", k), cell("name_image", k), cell("name_text", k)].map(named).filter(Boolean).flatMap((n) => lower(n).split(/[^\p{L}\p{N}'’-]+/u)).filter((w) => w.length > 1));
    if (!names.size) return caption;
    return caption.split(/([^\p{L}\p{N}'’-]+)/u).map((part) => names.has(lower(part)) ? h("mark", {}, part) : part);
  }
  function captionItem(sample, strongest, k) {
    const caption = pairs.caption[sample.pair] || pairs.id[sample.pair];
    const heat = state.heat ? shares(sample) : null, where = heat && !heat.length ? "\nfires at no word, only at the start or end of the text" : "";
    return h("li", { class: heat && heat.length ? "hot" : null }, h("span", { class: "said", title: caption + where }, words(sample, caption, k)), h("span", { class: "value" }, number(sample.value)),
      h("span", { class: "level", style: { width: 100 * Math.max(0.01, sample.value / strongest) + "%" } }));
  }
  const silent = (what) => h("p", { class: "silent" }, what in data.exemplars ? (what === "image" ? "never fires on an image" : "never fires on a caption") : (what === "image" ? "images were not read" : "captions were not read"));
  function gauge(k) {
    const mds = cell("mds", k);
    if (!("mds" in columns)) return null;
    const W = 234, x = (v) => 6 + v * (W - 12), parts = [];
    parts.push(svg("line", { class: "track", x1: x(0), x2: x(1), y1: 11, y2: 11, "stroke-linecap": "round" }));
    for (const cut of [0.2, 0.8]) parts.push(svg("line", { class: "cut", x1: x(cut), x2: x(cut), y1: 5, y2: 17 }));
    const low = cell("mds_low", k), high = cell("mds_high", k);
    if (low !== null && high !== null) parts.push(svg("line", { class: "interval", x1: x(low), x2: x(high), y1: 11, y2: 11, "stroke-linecap": "round" }));
    if (mds !== null) parts.push(svg("circle", { class: "marker", cx: x(mds), cy: 11, r: 6.5 }));
    const word = (at, anchor, says) => { const t = svg("text", { x: at, y: 31, "text-anchor": anchor }); t.textContent = says; return t; };
    parts.push(word(x(0) - 4, "start", "captions"), word(x(0.5), "middle", "MDS " + number(mds)), word(x(1) + 4, "end", "images"));
    const drawing = svg("svg", { class: "gauge", viewBox: `0 0 ${W} 34`, role: "img", "aria-label": mds === null ? "No modality score" : `Modality Dominance Score ${number(mds)} of 1` + (low !== null && high !== null ? `, interval ${number(low)} to ${number(high)}` : "") });
    drawing.append(...parts);
    return drawing;
  }
  function fires(k) {
    const image = cell("fire_image", k), text = cell("fire_text", k), most = Math.max(image || 0, text || 0) || 1, rows = [];
    for (const [name, word, value] of [["image", "images", image], ["text", "captions", text]]) {
      if (!("fire_" + name in columns)) continue;
      rows.push(h("span", {}, word), h("span", { class: "bar" }, h("span", { class: name, style: { width: value ? 100 * value / most + "%" : "0" } })), h("span", { class: "num", title: "fires on this share of " + word }, percent(value)));
    }
    return rows.length ? h("div", { class: "fires" }, rows) : null;
  }
  const HEADLINE = ["name_score", "name_agreement", "ms_image", "ms_text", "mms", "cofiring"];
  function scores(k) {
    const list = HEADLINE.filter((n) => n in columns);
    if (!list.includes(state.sort) && ![MIXED, "latent", "mds", "fire_image", "fire_text"].includes(state.sort)) list.unshift(state.sort);
    return h("dl", { class: "scores" }, list.slice(0, 5).map((n) => [h("dt", { title: (schema[n] || {}).about, class: n === state.sort ? "sorted" : null }, label(n)), h("dd", { class: n === state.sort ? "sorted" : null }, number(cell(n, k)))]));
  }
  function bothNames(k) {
    const image = named(cell("name_image", k)), text = named(cell("name_text", k));
    if (!image && !text || image === text) return null;
    if (!image || !text) return h("span", { class: "both", title: cell("name_evidence", k) }, image ? "from images alone" : "from captions alone");
    const parts = [];
    if (image) parts.push("images say ", h("b", {}, image));
    if (image && text) parts.push(", ");
    if (text) parts.push("captions say ", h("b", {}, text));
    return h("span", { class: "both", title: cell("name_evidence", k) }, parts);
  }
  function badge(k) { return "modality" in columns ? h("span", { class: "badge class-" + className(k) }, className(k)) : null; }
  function card(k, place) {
    const images = exemplars("image", k), texts = exemplars("text", k), name = nameOf(k);
    const title = h("button", { type: "button", onclick: () => open(k) }, name || "unnamed");
    return h("article", { class: "latent class-" + className(k) + (k === state.current ? " current" : ""), id: "latent-" + k, tabindex: 0, "aria-posinset": place + 1, "aria-setsize": state.order.length, "aria-label": `Latent ${k}: ${name || "unnamed"}`, style: { top: place * pitch + "px" }, onfocus: () => setCurrent(k) },
      h("header", {}, h("span", { class: "number" }, "#" + k), h("h3", { class: name ? null : "unnamed", title: cell("name_evidence", k) }, title), bothNames(k), badge(k)),
      images.length ? h("ul", { class: "pictures", "aria-label": "Top images" }, images.slice(0, 8).map((s) => pictureItem(s, images[0].value, false))) : silent("image"),
      texts.length ? h("ol", { class: "captions", "aria-label": "Top captions" }, texts.slice(0, 7).map((s) => captionItem(s, texts[0].value, k))) : silent("text"),
      h("div", { class: "numbers" }, gauge(k), fires(k), scores(k)));
  }

  // ---- in the dialog: how strongly it fires, and which latents are near
  function strengths(k) {
    const W = 300, H = 84, sides = [["image", "images"], ["text", "captions"]].map(([side, word]) => [side, word, cell("hist_" + side, k)]).filter(([, , counts]) => counts && counts.some((n) => n > 0));
    if (!sides.length) return null;
    const filled = sides.flatMap(([, , counts]) => counts.map((n, i) => n > 0 ? i : -1).filter((i) => i >= 0));
    const first = Math.min(...filled), last = Math.max(...filled), step = (W - 8) / (last - first + 1);
    const edge = (i) => number(2 ** (i / 2 - 12));
    return h("div", { class: "strengths" }, sides.map(([side, word, counts]) => {
      const most = Math.max(...counts), total = counts.reduce((a, b) => a + b, 0);
      const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Activations on ${word}: ${total} firings between ${edge(first)} and ${edge(last + 1)}` });
      for (let i = first; i <= last; i++) if (counts[i]) {
        const tall = Math.max(1, 60 * counts[i] / most), title = svg("title", {});
        title.textContent = `${number(counts[i])} ${word} from ${edge(i)} to ${edge(i + 1)}`;
        drawing.append(svg("rect", { class: side, x: 4 + (i - first) * step + 0.5, y: 64 - tall, width: Math.max(1, step - 1), height: tall }, title));
      }
      const word_ = (x, anchor, says) => { const t = svg("text", { x, y: 80, "text-anchor": anchor }); t.textContent = says; return t; };
      drawing.append(svg("line", { x1: 4, x2: W - 4, y1: 64.5, y2: 64.5 }), word_(4, "start", edge(first)), word_(W / 2, "middle", `activation on ${number(total)} ${word}`), word_(W - 4, "end", edge(last + 1)));
      return drawing;
    }));
  }
  function link(k, says) {
    return h("a", { href: "#latent-" + k, class: "near class-" + className(k), onclick: (event) => { event.preventDefault(); if (state.order.includes(k)) show(k); open(k); } }, h("span", { class: "number" }, "#" + k), " ", nameOf(k) || "unnamed", h("small", {}, says));
  }
  function near(k) {
    const rows = [], others = cell("neighbours", k), cosines = cell("neighbour_cosine", k), partner = cell("bridge_partner", k);
    if (others && others.length) rows.push(h("p", {}, h("span", { class: "says" }, "Nearest decoder rows"), others.map((other, i) => link(other, number(cosines[i])))));
    if (partner !== null && partner >= 0) rows.push(h("p", {}, h("span", { class: "says" }, "Bridges to"), link(partner, number(cell("bridge", k)))));
    return rows.length ? h("div", { class: "nearby" }, rows) : null;
  }

  // ---- all of one latent
  function open(k) {
    const dialog = $("detail"), images = exemplars("image", k), texts = exemplars("text", k), name = nameOf(k);
    const place = state.order.indexOf(k), step = (by) => { const next = state.order[place + by]; if (next !== undefined) { show(next); open(next); } };
    dialog.className = "class-" + className(k);
    dialog.replaceChildren(...[
      h("header", {}, h("span", { class: "number" }, "#" + k), h("h2", { id: "detail-title" }, name || "unnamed"), badge(k),
        h("button", { type: "button", class: "quiet", "aria-label": "Previous latent", disabled: place <= 0, onclick: () => step(-1) }, "←"),
        h("button", { type: "button", class: "quiet", "aria-label": "Next latent", disabled: place < 0 || place >= state.order.length - 1, onclick: () => step(1) }, "→"),
        h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
      h("div", { class: "numbers" }, gauge(k), fires(k)), strengths(k), near(k),
      h("h3", {}, "Top images"), images.length ? h("ul", { class: "pictures" }, images.filter((s) => pairs.picture[s.pair] >= 0).map((s) => pictureItem(s, images[0].value, true))) : silent("image"),
      h("h3", {}, "Top captions"), texts.length ? h("ol", { class: "captions" }, texts.map((s) => captionItem(s, texts[0].value, k))) : silent("text"),
      h("h3", {}, "Every column"), h("dl", { class: "columns" }, Object.keys(columns).filter((n) => !Array.isArray(cell(n, k))).map((n) => h("div", {}, h("dt", { title: (schema[n] || {}).about }, label(n)), h("dd", {}, number(cell(n, k))))))].filter(Boolean));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    history.replaceState(null, "", "#latent-" + k);
    tell(k);
  }
  $("detail").addEventListener("close", () => { history.replaceState(null, "", "#latents"); tell(null); });
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });

  // ---- what is shown, in which order
  const CLASSES = ["ImgD", "CrossD", "TextD", "dead"], MIXED = "best names, mixed";
  const state = { heat: Object.keys(data.heat).length > 0, query: "", captions: false, kind: "all", sort: columns.name_score ? MIXED : "latent", down: true, range: null, order: [], current: null };
  if (state.sort === "latent") state.down = false;
  // Best named first, one class after the other, so that the page opens on some of everything.
  function mixed() {
    const sure = columns.name_score_low || columns.name_score, place = new Array(data.latents).fill(null), seen = {};
    const order = place.map((_, k) => k).filter((k) => sure[k] !== null).sort((a, b) => sure[b] - sure[a] || a - b);
    for (const k of order) { const c = className(k); seen[c] = (seen[c] || 0) + 1; place[k] = -(seen[c] * 4 + CLASSES.indexOf(c)); }
    return place;
  }
  const mixedOrder = columns.name_score ? mixed() : null;
  const lower = (text) => (text || "").toString().toLowerCase();
  const haystack = Array.from({ length: data.latents }, (_, k) => ["name", "name_image", "name_text"].map((n) => lower(named(cell(n, k)))).join("\n"));
  let lowered = null; // captions in lower case, made at the first search that needs them
  function said(k, query) {
    lowered ||= pairs.caption.map(lower);
    return ["image", "text"].some((m) => exemplars(m, k).some((s) => lowered[s.pair].includes(query)));
  }
  function fits(k) {
    if (state.kind !== "all" && className(k) !== state.kind) return false;
    if (state.range) {
      const v = cell(state.range.column, k);
      if (v === null || v < state.range.low || v > state.range.high) return false;
    }
    if (!state.query) return true;
    const wanted = /^#?(\d+)$/.exec(state.query);
    if (wanted && Number(wanted[1]) === k) return true;
    return haystack[k].includes(state.query) || (state.captions && said(k, state.query));
  }
  function arrange() {
    const values = state.sort === MIXED ? mixedOrder : columns[state.sort], sign = state.down ? -1 : 1, order = [];
    for (let k = 0; k < data.latents; k++) if (fits(k)) order.push(k);
    order.sort((a, b) => {
      const x = values[a], y = values[b];
      if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
      return x === y ? a - b : sign * (x - y);
    });
    state.order = order;
    if (!order.includes(state.current)) state.current = null;
    $("shown").textContent = order.length === data.latents ? `${number(order.length)} latents` : `${number(order.length)} of ${number(data.latents)}`;
    $("none").hidden = order.length > 0;
    $("clear").hidden = !(state.query || state.kind !== "all" || state.range);
    for (const button of $("classes").children) if (button.dataset.kind) button.setAttribute("aria-pressed", button.dataset.kind === state.kind);
    list.style.height = order.length * pitch + "px";
    draw(true);
  }

  // ---- drawing only what is in view
  const list = $("list");
  const drawn = new Map(); // latent -> card
  let pitch = 0;
  function measure() {
    const style = getComputedStyle(root);
    pitch = parseFloat(style.getPropertyValue("--card-height")) + parseFloat(style.getPropertyValue("--gap"));
  }
  function draw(anew) {
    const box = list.getBoundingClientRect(), margin = innerHeight, fewest = 3, end = state.order.length; // never an empty list, which screen readers could not enter
    const first = Math.max(0, Math.min(end - fewest, Math.floor((-box.top - margin) / pitch)));
    const last = Math.min(end, Math.max(first + fewest, Math.ceil((innerHeight + margin - box.top) / pitch)));
    if (anew) { drawn.forEach((element) => element.remove()); drawn.clear(); }
    const wanted = new Set(state.order.slice(first, last));
    drawn.forEach((element, k) => { if (!wanted.has(k) && !element.contains(document.activeElement)) { element.remove(); drawn.delete(k); } });
    for (let place = first; place < last; place++) {
      const k = state.order[place];
      if (drawn.has(k)) continue;
      const element = card(k, place);
      drawn.set(k, element);
      list.append(element);
    }
  }
  let waiting = false;
  addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(false); }); } }, { passive: true });
  addEventListener("resize", () => { measure(); list.style.height = state.order.length * pitch + "px"; draw(true); });

  // ---- moving about
  function setCurrent(k) {
    if (state.current === k) return;
    drawn.get(state.current)?.classList.remove("current");
    state.current = k;
    drawn.get(k)?.classList.add("current");
  }
  function show(k) {
    const place = state.order.indexOf(k);
    if (place < 0) return;
    const top = list.getBoundingClientRect().top + scrollY + place * pitch, room = $("controls").offsetHeight + 14;
    if (top - room < scrollY || top + pitch > scrollY + innerHeight) scrollTo(0, top - room);
    draw(false);
    setCurrent(k);
  }
  function step(by) {
    if (!state.order.length) return;
    const place = state.current === null ? (by > 0 ? -1 : 1) : state.order.indexOf(state.current);
    const k = state.order[Math.min(state.order.length - 1, Math.max(0, place + by))];
    show(k);
    drawn.get(k)?.focus({ preventScroll: true });
  }

  // ---- controls
  function chip(kind, says, count) {
    return h("button", { type: "button", "data-kind": kind, class: kind === "all" ? null : "class-" + kind, "aria-pressed": kind === state.kind, onclick: () => { state.kind = kind; arrange(); } }, says, h("small", {}, number(count)));
  }
  const tally = {};
  for (let k = 0; k < data.latents; k++) tally[className(k)] = (tally[className(k)] || 0) + 1;
  const kinds = ["all", ...CLASSES.filter((c) => tally[c])];
  if (columns.modality) $("classes").append(...kinds.map((c) => c === "all" ? chip("all", "All", data.latents) : chip(c, c, tally[c])));
  const FIRST = ["name_score", "mds", "ms_image", "ms_text", "mms", "cofiring", "name_agreement", "fire_image", "fire_text", "latent"];
  const sortable = [...FIRST.filter((n) => numeric.includes(n)), ...numeric.filter((n) => !FIRST.includes(n))];
  if (mixedOrder) $("sort").append(h("option", { value: MIXED }, MIXED));
  for (const id of ["sort", "range-column"]) $(id).append(...sortable.map((n) => h("option", { value: n }, label(n))));
  $("sort").value = state.sort;
  function showDirection() { $("direction").textContent = state.down ? "↓" : "↑"; $("direction").setAttribute("aria-label", `Sorted from ${state.down ? "high to low" : "low to high"}; choose to reverse`); }
  showDirection();
  $("sort").addEventListener("change", () => { state.sort = $("sort").value; state.down = state.sort !== "latent"; showDirection(); arrange(); });
  $("direction").addEventListener("click", () => { state.down = !state.down; showDirection(); arrange(); });
  $("search").addEventListener("input", () => { state.query = lower($("search").value.trim()); arrange(); });
  $("in-captions").addEventListener("change", () => { state.captions = $("in-captions").checked; arrange(); });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  function readRange() {
    const low = $("range-low").value, high = $("range-high").value;
    state.range = low === "" && high === "" ? null : { column: $("range-column").value, low: low === "" ? -Infinity : Number(low), high: high === "" ? Infinity : Number(high) };
    arrange();
  }
  for (const id of ["range-column", "range-low", "range-high"]) $(id).addEventListener("input", readRange);
  function clear() {
    for (const id of ["search", "range-low", "range-high"]) $(id).value = "";
    Object.assign(state, { query: "", kind: "all", range: null });
    arrange();
  }
  $("clear").addEventListener("click", clear);
  $("clear-none").addEventListener("click", clear);
  for (const bar of document.querySelectorAll(".histogram .bar")) {
    const choose = () => {
      $("range-column").value = "mds"; $("range-low").value = bar.dataset.low; $("range-high").value = bar.dataset.high; $("more").open = true;
      readRange();
      $("latents").scrollIntoView();
    };
    bar.addEventListener("click", choose);
    bar.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
  }
  function switchHeat() {
    state.heat = !state.heat;
    $("heat").setAttribute("aria-pressed", state.heat);
    draw(true);
    if ($("detail").open) open(Number($("detail").querySelector(".number").textContent.slice(1)));
  }
  $("heat").hidden = !state.heat;
  $("heat").addEventListener("click", switchHeat);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing) return;
    const dialog = $("detail");
    if (event.key === "h" && !$("heat").hidden) { switchHeat(); return; }
    if (dialog.open) {
      if (event.key === "ArrowRight" || event.key === "j") dialog.querySelector('[aria-label="Next latent"]').click();
      if (event.key === "ArrowLeft" || event.key === "k") dialog.querySelector('[aria-label="Previous latent"]').click();
      return;
    }
    if (event.key === "/") { event.preventDefault(); $("search").focus(); }
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "t") switchTheme();
    else if (event.key === "Enter" && event.target.classList.contains("latent")) open(Number(event.target.id.slice(7)));
    else if (/^[1-5]$/.test(event.key) && kinds[event.key - 1]) { state.kind = kinds[event.key - 1]; arrange(); }
  });

  function follow() {
    const wanted = /^#latent-(\d+)$/.exec(location.hash);
    if (wanted) { show(Number(wanted[1])); open(Number(wanted[1])); }
  }

  measure();
  arrange();
  // Pictures stand behind this script in the file: cards drawn before they were read are drawn again.
  addEventListener("DOMContentLoaded", () => {
    draw(true);
    follow();
  });
  addEventListener("hashchange", follow);

  // In a notebook the page stands in a frame: it tells which latent is open, and opens the one it is asked for.
  function tell(k) { if (parent !== window) parent.postMessage({ cliplens: "latent", latent: k }, "*"); }
  addEventListener("message", (event) => {
    if (parent === window || event.source !== parent || !event.data || event.data.cliplens !== "latent") return;
    const k = event.data.latent;
    if (k === null) $("detail").close();
    else if (Number.isInteger(k) && k >= 0 && k < data.latents) { show(k); open(k); }
  });
})();
