"use strict";
// The gallery of a run. Data comes from the block #data; text reaches the page by textContent only.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PARTS = { style: 0, content: 1, result: 2 }; // their place in a stack, from above

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function picture(url) {
  const image = make("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  image.draggable = false;
  image.src = url;
  return image;
}

// One of the three pictures of a pair, cut out of its stack.
function crop(pair, part, className = "") {
  const box = make("div", `crop ${className}`);
  box.style.setProperty("--w", data.cell);
  box.style.setProperty("--k", PARTS[part]);
  if (pair.stack) box.append(picture(pair.stack));
  return box;
}

const names = (pair) => [data.contents[pair.c], data.styles[pair.s]];
const describe = (pair) => `content ${names(pair)[0]}, style ${names(pair)[1]}`;
const number = (x) => (typeof x === "number" ? String(Number(x.toPrecision(4))) : "n/a");

// ---- the grid ---------------------------------------------------------------------------------------------------

let shown = []; // pairs in view, in order
let cells = []; // their buttons
let columns = 1; // 0: cards, as many a row as fit

function fillSelect(select, first, options) {
  select.append(new Option(first, ""));
  options.forEach((name, i) => select.append(new Option(name, i)));
}

function cell(pair, i, caption) {
  const button = make("button", caption ? "cell card" : "cell");
  button.type = "button";
  button.tabIndex = i ? -1 : 0; // one tab stop; arrow keys do the rest
  button.dataset.i = i;
  button.setAttribute("aria-label", describe(pair) + (pair.failed ? ", failed" : ""));
  if (pair.failed) button.append("failed");
  else if (pair.stack.startsWith("data:")) button.append(crop(pair, "result"));
  else button.append(picture(pair.result));
  if (caption) button.append(make("span", "", caption));
  cells[i] = button;
  return button;
}

function label(name, pair, part, className) {
  const box = make("div", `label ${className}`);
  box.title = name;
  box.append(pair ? crop(pair, part) : crop({}, part), make("span", "", name));
  return box;
}

function showMatrix(rowKeys, columnKeys) {
  const at = new Map(shown.map((pair, i) => [pair.c * data.styles.length + pair.s, i]));
  const good = shown.filter((pair) => pair.stack);
  const ofStyle = new Map(good.map((pair) => [pair.s, pair]));
  const ofContent = new Map(good.map((pair) => [pair.c, pair]));
  const head = make("div", "row head");
  head.append(make("div", "name"), ...columnKeys.map((s) => label(data.styles[s], ofStyle.get(s), "style", "")));
  const rows = rowKeys.map((c) => {
    const row = make("div", "row");
    row.append(label(data.contents[c], ofContent.get(c), "content", "name"));
    for (const s of columnKeys) {
      const i = at.get(c * data.styles.length + s);
      row.append(i === undefined ? make("div") : cell(shown[i], i, ""));
    }
    return row;
  });
  $("grid").replaceChildren(head, ...rows);
  $("grid").className = "matrix";
  $("grid").style.setProperty("--columns", columnKeys.length + 1);
}

function showCards(metric) {
  const row = make("div", "row");
  row.append(...shown.map((pair, i) => {
    const value = metric === null ? "" : `${number(pair.metrics?.[metric])} · `;
    return cell(pair, i, value + names(pair).join(" / "));
  }));
  $("grid").replaceChildren(row);
  $("grid").className = "cards";
}

function show() {
  const [content, style, order] = ["content", "style", "order"].map((id) => $(id).value);
  const metric = order === "" || order === "failed" ? null : Number(order);
  shown = data.pairs.filter((pair) => (content === "" || pair.c === Number(content)) && (style === "" || pair.s === Number(style))
    && (order !== "failed" || pair.failed));
  shown.sort((a, b) => a.c - b.c || a.s - b.s);
  if (metric !== null) shown.sort((a, b) => (a.metrics?.[metric] ?? Infinity) - (b.metrics?.[metric] ?? Infinity));
  cells = [];
  const rowKeys = [...new Set(shown.map((pair) => pair.c))];
  const columnKeys = [...new Set(shown.map((pair) => pair.s))].sort((a, b) => a - b);
  const dense = order === "" && 2 * shown.length >= rowKeys.length * columnKeys.length;
  columns = dense ? columnKeys.length : 0;
  if (dense) showMatrix(rowKeys, columnKeys);
  else showCards(metric);
  const failed = data.pairs.filter((pair) => pair.failed).length;
  const seconds = typeof data.seconds === "number" ? `, ${data.seconds} s` : "";
  $("summary").textContent = `${shown.length} of ${data.pairs.length} pairs shown, ${failed} failed${seconds}`;
}

function across() {
  if (columns) return columns;
  const top = cells[0].offsetTop;
  const next = cells.findIndex((button) => button.offsetTop !== top);
  return next < 0 ? cells.length : next;
}

$("grid").addEventListener("keydown", (event) => {
  const from = Number(event.target.dataset.i);
  if (Number.isNaN(from)) return;
  const jump = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across(), ArrowDown: across(), Home: -from, End: cells.length - 1 - from };
  const to = from + jump[event.key];
  if (!cells[to]) return;
  event.preventDefault();
  cells[from].tabIndex = -1;
  cells[to].tabIndex = 0;
  cells[to].focus();
});

// With a mouse the content wipes over a result under the pointer.
$("grid").addEventListener("pointermove", (event) => {
  const button = event.target.closest(".cell");
  if (event.pointerType !== "mouse" || !button || !shown[button.dataset.i].stack) return;
  let over = button.querySelector(".hover");
  if (!over) {
    over = crop(shown[button.dataset.i], "content", "hover");
    button.append(over);
    button.addEventListener("pointerleave", () => over.remove(), { once: true });
  }
  const box = button.getBoundingClientRect();
  over.style.setProperty("--x", `${(100 * (event.clientX - box.left)) / box.width}%`);
});

$("grid").addEventListener("click", (event) => {
  const button = event.target.closest(".cell");
  if (button) compare(Number(button.dataset.i));
});

// ---- one pair ---------------------------------------------------------------------------------------------------

let current = 0;

function table(entries) {
  return entries.map(([key, value]) => {
    const row = make("tr");
    const text = value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
    row.append(make("th", "", key), make("td", "", text));
    return row;
  });
}

function slide() {
  $("frame").style.setProperty("--x", `${$("slider").value}%`);
}

function compare(i) {
  current = i;
  const pair = shown[i];
  const side = document.querySelector("input[name=side]:checked").value;
  $("pair").textContent = describe(pair);
  $("reason").textContent = pair.failed ?? "";
  $("frame").replaceChildren(crop(pair, "result"), crop(pair, side, "over"), make("div", "edge"));
  $("three").replaceChildren(...["content", "style", "result"].map((part) => {
    const figure = make("figure");
    figure.append(crop(pair, part), make("figcaption", "", part));
    return figure;
  }));
  const metrics = data.metrics.map((name, k) => [name, number(pair.metrics?.[k])]);
  $("facts").replaceChildren(...table([...Object.entries(pair.settings ?? {}), ...metrics]));
  $("file").hidden = !pair.result;
  if (pair.result) $("file").href = pair.result;
  $("previous").disabled = i === 0;
  $("next").disabled = i === shown.length - 1;
  slide();
  if (!$("compare").open) {
    $("compare").showModal();
    $("slider").focus();
  }
}

function go(step) {
  if (shown[current + step]) compare(current + step);
}

function choose(side) {
  document.querySelector(`input[name=side][value=${side}]`).checked = true;
  compare(current);
}

$("slider").addEventListener("input", slide);
$("previous").addEventListener("click", () => go(-1));
$("next").addEventListener("click", () => go(1));
$("close").addEventListener("click", () => $("compare").close());
$("compare").addEventListener("click", (event) => event.target === $("compare") && $("compare").close());
$("compare").addEventListener("change", (event) => event.target.name === "side" && compare(current));
$("compare").addEventListener("close", () => cells[current]?.focus());
$("compare").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const action = { n: () => go(1), p: () => go(-1), c: () => choose("content"), s: () => choose("style") }[event.key];
  if (action) action();
});
for (const kind of ["pointerdown", "pointermove"]) {
  $("frame").addEventListener(kind, (event) => {
    if (!event.buttons) return;
    const box = $("frame").getBoundingClientRect();
    $("slider").value = (100 * (event.clientX - box.left)) / box.width;
    slide();
  });
}

// ---- start ------------------------------------------------------------------------------------------------------

$("title").textContent = data.title;
fillSelect($("content"), "all", data.contents);
fillSelect($("style"), "all", data.styles);
fillSelect($("order"), "grid", data.metrics.map((name) => `by ${name}`));
const failures = Object.entries(data.failed);
if (failures.length) {
  $("order").append(new Option("failed only", "failed"));
  $("failures").hidden = false;
  $("failures").open = true;
  $("failures").querySelector("summary").textContent = `Failures (${failures.length})`;
  $("failures").querySelector("ul").append(...failures.map(([what, why]) => make("li", "", why.includes(what) ? why : `${what}: ${why}`)));
}
for (const [name, values] of Object.entries(data.tables)) {
  const body = make("table");
  body.append(...table(Object.entries(values)));
  $("settings").querySelector("div").append(make("h2", "", name), body);
}
$("filters").addEventListener("change", show);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("size").addEventListener("input", () => document.documentElement.style.setProperty("--side", `${$("size").value}px`));
show();
