// What the plots and the gallery share: the data, and small helpers. All texts go in as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const metrics = new Map(data.metrics.map(metric => [metric.key, metric]));
const by = id => document.getElementById(id);

function fill(element, attributes = {}, text = null) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

const html = (parent, tag, attributes, text) =>
  fill(parent.appendChild(document.createElement(tag)), attributes, text);

const svg = (parent, tag, attributes, text) =>
  fill(parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", tag)), attributes, text);

const press = (button, pressed) => button.setAttribute("aria-pressed", String(pressed));

const isNumber = value => typeof value === "number" && Number.isFinite(value);

// A value with its unit; of a metric that no curve has, four digits.
function written(key, value) {
  const metric = metrics.get(key);
  return metric ? `${value.toFixed(metric.digits)} ${metric.unit}`.trim() : String(Number(value.toPrecision(4)));
}

const bytes = size => `${Number(size.toPrecision(size < 1000 ? 3 : 4))} bytes`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

