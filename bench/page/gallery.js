// The page's data, and small helpers. All texts go in as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const by = id => document.getElementById(id);

function fill(element, attributes = {}, text = null) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

const html = (parent, tag, attributes, text) =>
  fill(parent.appendChild(document.createElement(tag)), attributes, text);
const press = (button, pressed) => button.setAttribute("aria-pressed", String(pressed));
const isNumber = value => typeof value === "number" && Number.isFinite(value);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const bytes = size => `${Number(size.toPrecision(size < 1000 ? 3 : 4))} bytes`;

// A value with its unit; of a metric that no curve has, four digits.
function written(key, value) {
  const metric = data.metrics[key];
  return metric ? `${value.toFixed(metric.digits)} ${metric.unit}`.trim() : String(Number(value.toPrecision(4)));
}

// The gallery: a picture, two versions of it, and a slider between them.

const ORIGINAL = {method: "Original", label: "", bytes: null};

const state = {entries: data.gallery, at: 0, left: null, right: ORIGINAL};

const same = (a, b) => a.method === b.method && a.label === b.label && a.bytes === b.bytes;
const title = version => [version.method, version.label].filter(Boolean).join(", ");
const longTitle = version => title(version) + (version.bytes === null ? "" : ` (${bytes(version.bytes)})`);

const current = () => state.entries[state.at];
const versions = entry => [{...ORIGINAL, file: entry.original}, ...entry.shown];

// ---- which versions

// Of a method's versions the one nearest in bytes; its label decides where bytes do not.
function nearest(entry, wanted, size = wanted.bytes) {
  const found = versions(entry).filter(version => version.method === wanted.method);
  const away = version => Math.abs(Math.log(version.bytes / size));
  const labelled = found.find(version => version.label === wanted.label && size === wanted.bytes);
  return labelled ?? found.sort((a, b) => away(a) - away(b))[0] ?? versions(entry)[0];
}

// After one side was chosen the other follows to as many bytes, if that is ticked.
function choose(side, version) {
  const other = side === "left" ? "right" : "left";
  state[side] = version;
  if (by("equal-bytes").checked && version.bytes !== null && state[other].bytes !== null)
    state[other] = nearest(current(), state[other], version.bytes);
  show();
}

// To start with: titok at the highest rate at which there are rivals, and the best of these
// by PSNR, which is kind to them.
function start(entry) {
  const alike = (a, b) => Math.abs(Math.log(a.bytes / b.bytes)) < 0.1;
  const ours = entry.shown.filter(version => version.kind === "titok");
  const rivals = entry.shown.filter(version => version.kind !== "titok");
  state.left = ours.filter(version => rivals.some(rival => alike(version, rival))).at(-1) ?? ours.at(-1) ?? rivals[0];
  const psnr = version => version["psnr-rgb"] ?? 0;
  const close = rivals.filter(rival => alike(state.left, rival)).sort((a, b) => psnr(a) - psnr(b));
  state.right = close.at(-1) ?? versions(entry)[0];
}

// Higher is better, by the first of these metrics that the version has.
function quality(version) {
  if (isNumber(version["lpips-squeeze"])) return -version["lpips-squeeze"];
  return isNumber(version["psnr-rgb"]) ? version["psnr-rgb"] : 0;
}

// ---- order

function entryQuality(entry) {
  const ours = entry.shown.filter(version => version.kind === "titok").map(quality);
  return ours.reduce((sum, value) => sum + value, 0) / (ours.length || 1);
}

// Those that were picked for it as they were picked, then the others by their quality.
function ordered(order) {
  if (order === "given") return data.gallery;
  const picked = data.gallery.filter(entry => order in entry.why).sort((a, b) => a.why[order] - b.why[order]);
  const others = data.gallery.filter(entry => !(order in entry.why));
  const sign = order === "worst" ? 1 : -1;
  return [...picked, ...others.sort((a, b) => sign * (entryQuality(a) - entryQuality(b)))];
}

function reorder(button) {
  document.querySelectorAll("[data-order]").forEach(other => press(other, other === button));
  state.entries = ordered(button.dataset.order);
  strip();
  go(0);
}

// ---- what is on the page

function show() {
  const entry = current();
  for (const side of ["left", "right"]) {
    const version = state[side], image = by(side === "left" ? "under" : "over");
    fill(image, {src: data.pictures[version.file], alt: `${entry.name}: ${longTitle(version)}`});
    by(`badge-${side}`).textContent = title(version);
    by(`caption-${side}`).textContent = caption(version);
    options(by(side), entry, version);
  }
  by("where").textContent = `${state.at + 1} of ${state.entries.length}: ${entry.name}${reason(entry)}`;
  [...by("strip").children].forEach((button, number) => press(button, number === state.at));
}

const reason = entry => ["worst", "best"].filter(why => why in entry.why).map(why => `, one of the ${why}`).join("");

function caption(version) {
  const keys = Object.keys(version).filter(key => key !== "bytes" && isNumber(version[key]));
  const values = keys.map(key => `${data.metrics[key]?.name ?? key} ${written(key, version[key])}`);
  return [title(version), version.bytes === null ? "" : bytes(version.bytes), ...values].filter(Boolean).join("\n");
}

function options(select, entry, chosen) {
  select.replaceChildren();
  const groups = new Map();
  versions(entry).forEach((version, number) => {
    if (version.method !== ORIGINAL.method && !groups.has(version.method))
      groups.set(version.method, html(select, "optgroup", {label: version.method}));
    const option = html(groups.get(version.method) ?? select, "option", {value: number}, longTitle(version));
    option.selected = same(version, chosen);
  });
}

function strip() {
  by("strip").replaceChildren();
  state.entries.forEach((entry, number) => {
    const button = html(by("strip"), "button", {type: "button", "aria-pressed": "false"});
    html(button, "img", {src: data.pictures[entry.original], alt: entry.name});
    html(button, "span", {}, Object.keys(entry.why).join(", "));
    button.addEventListener("click", () => go(number));
  });
}

function go(number) {
  const count = state.entries.length;
  state.at = (number + count) % count;
  for (const side of ["left", "right"]) state[side] = nearest(current(), state[side]);
  show();
  const row = by("strip"), button = row.children[state.at];
  row.scrollLeft = button.offsetLeft - row.offsetLeft - (row.clientWidth - button.clientWidth) / 2;
}

// ---- the slider, and keys

function splitAt(percent) {
  by("split").value = clamp(percent, 0, 100);
  by("stage").style.setProperty("--split", `${by("split").value}%`);
}

function drag(event) {
  const box = by("stage").getBoundingClientRect();
  splitAt(100 * (event.clientX - box.left) / box.width);
}

// The whole window listens while the button is down, so that a drag may leave the picture.
function draggable() {
  let held = false;
  by("stage").addEventListener("pointerdown", event => {
    held = event.isPrimary && event.button === 0;
    if (held) drag(event);
  });
  window.addEventListener("pointermove", event => held && event.isPrimary && drag(event));
  for (const kind of ["pointerup", "pointercancel"]) window.addEventListener(kind, () => { held = false; });
}

// Small pictures are shown at twice their size, large ones at their own.
function fit() {
  const wide = by("under").naturalWidth;
  by("stage").closest(".viewer").style.setProperty("--wide", `${clamp(wide < 512 ? 2 * wide : wide, 384, 800)}px`);
}

function listen() {
  by("under").addEventListener("load", fit);
  draggable();
  by("split").addEventListener("input", event => splitAt(event.target.valueAsNumber));
  by("previous").addEventListener("click", () => go(state.at - 1));
  by("next").addEventListener("click", () => go(state.at + 1));
  for (const side of ["left", "right"])
    by(side).addEventListener("change", event => choose(side, versions(current())[event.target.value]));
  by("equal-bytes").addEventListener("change", () => choose("left", state.left));
  document.querySelectorAll("[data-order]").forEach(button => button.addEventListener("click", () => reorder(button)));
  document.addEventListener("keydown", arrows);
}

// Left and right change the picture, unless something with arrow keys of its own has the focus.
function arrows(event) {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const own = event.target.matches("input, select");
  const free = event.target === document.body || (by("gallery").contains(event.target) && !own);
  if (!step || !free || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  go(state.at + step);
}

function gallery() {
  if (!data.gallery.length) return;
  by("gallery").hidden = false;
  start(current());
  listen();
  strip();
  splitAt(50);
  show();
}

gallery();
