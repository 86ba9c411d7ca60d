// One plot for each metric, in SVG: every method a line over log bytes, with a legend of buttons that hide and show.

const MARGIN = {left: 52, right: 14, top: 44, bottom: 42};
const HEIGHT = 340;
const DIGITS = 36; // pixels from the middle of a number on the x axis to that of the next
const NEAR = 40; // pixels from a mark that still point at it

const families = [...new Set(data.methods.map(method => method.family))];
const curves = data.methods.map((method, index) => ({
  ...method, index, shown: true, colour: `var(--c${families.indexOf(method.family) % 8})`,
}));

// ---- marks: eight shapes, each as a path around (0, 0)

function polygon(corners, turn, inner = 1) {
  const count = inner === 1 ? corners : 2 * corners;
  const places = Array.from({length: count}, (_, number) => {
    const radius = 5.4 * (number % 2 ? inner : 1);
    const angle = 2 * Math.PI * (number / count + turn);
    return `${(radius * Math.sin(angle)).toFixed(2)} ${(-radius * Math.cos(angle)).toFixed(2)}`;
  });
  return `M${places.join("L")}Z`;
}

const SHAPES = [
  "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z", polygon(4, 1 / 8), polygon(3, 0), polygon(4, 0), polygon(3, 1 / 2),
  polygon(5, 0, 0.45), polygon(6, 0), polygon(4, 0, 0.4),
];

const mark = (parent, curve, x, y, hollow) => svg(parent, "path", {
  d: SHAPES[curve.index % SHAPES.length], transform: `translate(${x} ${y})`, stroke: curve.colour, "stroke-width": 1.5,
  fill: hollow ? "var(--paper)" : curve.colour, class: "mark",
});

const stroke = curve => ({
  stroke: curve.colour, "stroke-width": curve.kind === "titok" ? 3 : 1.8, fill: "none",
  "stroke-dasharray": curve.kind === "native" ? "6 4" : "none",
});

// ---- axes

function steps(low, high, wanted) {
  const rough = (high - low) / wanted;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find(factor => factor * unit >= rough);
  const step = factor * unit;
  const found = [];
  for (let number = Math.ceil(low / step); number * step <= high; number++) found.push(number * step);
  return {found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (factor === 2.5))};
}

// Round numbers on a log axis of so many pixels: the densest of three choices that leaves room for their digits.
function logSteps(low, high, pixels) {
  const choices = [[1, 1.5, 2, 3, 4, 6, 8], [1, 2, 5], [1]].map(factors => {
    const decades = Array.from({length: 14}, (_, number) => 10 ** (number - 6));
    return decades.flatMap(unit => factors.map(factor => factor * unit)).filter(at => at >= low && at <= high);
  });
  const apart = (a, b) => pixels * Math.log(b / a) / Math.log(high / low);
  const roomy = found => found.every((at, number) => !number || apart(found[number - 1], at) >= DIGITS);
  return choices.find(found => roomy(found)) ?? choices[2];
}

// Bits per pixel for a byte, where that is the same for all methods (one size of pictures).
function bitsPerByte() {
  const ratios = curves.flatMap(curve => curve.points.filter(point => point.bpp).map(point => point.bpp / point.bytes));
  return ratios.length && Math.max(...ratios) < 1.05 * Math.min(...ratios) ? ratios[0] : null;
}

function range(values, margin) {
  const low = Math.min(...values), high = Math.max(...values);
  const room = margin * (high - low || Math.abs(high) || 1);
  return [low - room, high + room];
}

// ---- one plot

class Chart {
  constructor(parent, metric) {
    this.metric = metric;
    this.figure = html(parent, "figure", {class: "chart", "data-metric": metric.key});
    const title = html(this.figure, "h3", {}, `${metric.name}${metric.unit && `, ${metric.unit}`} `);
    html(title, "span", {class: "way"}, metric.lower ? "↓ lower is better" : "↑ higher is better");
    const label = `${metric.name} over bytes; the values are in the table of all points`;
    this.svg = svg(this.figure, "svg", {role: "img", tabindex: 0, height: HEIGHT, "aria-label": label});
    this.tip = html(this.figure, "div", {class: "tip", role: "status", hidden: ""});
    for (const kind of ["pointermove", "pointerdown"]) this.svg.addEventListener(kind, event => this.pointAt(event));
    // A finger that is lifted leaves as well, but has yet to read.
    this.svg.addEventListener("pointerleave", event => event.pointerType !== "touch" && this.tell(null));
    this.svg.addEventListener("blur", () => this.tell(null));
    this.svg.addEventListener("keydown", event => this.walk(event));
  }

  draw() {
    this.width = this.figure.clientWidth;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.replaceChildren();
    this.tell(null);
    const key = this.metric.key;
    this.lines = curves.filter(curve => curve.shown)
      .map(curve => ({curve, points: curve.points.filter(point => isNumber(point.values[key]))}))
      .filter(line => line.points.length);
    const points = this.lines.flatMap(line => line.points);
    if (!points.length) {
      const middle = {x: this.width / 2, y: HEIGHT / 2, "text-anchor": "middle"};
      svg(this.svg, "text", middle, "nothing is chosen to be shown");
      this.places = [];
      return;
    }
    this.wide = range(points.map(point => Math.log(this.size(point))), 0.04);
    this.high = range(points.flatMap(point => [point.values[key], ...(point.intervals[key] ?? [])]), 0.05);
    this.axes();
    this.lines.forEach(line => this.line(line));
    this.places = this.lines.flatMap(({curve, points}) => points.map(point => ({curve, point, ...this.place(point)})));
    this.ring = svg(this.svg, "circle", {r: 9, class: "ring", visibility: "hidden"});
  }

  across(size) {
    const share = (Math.log(size) - this.wide[0]) / (this.wide[1] - this.wide[0]);
    return MARGIN.left + share * (this.width - MARGIN.left - MARGIN.right);
  }

  down(value) {
    const share = (value - this.high[0]) / (this.high[1] - this.high[0]);
    return HEIGHT - MARGIN.bottom - share * (HEIGHT - MARGIN.top - MARGIN.bottom);
  }

  // Bytes behind this metric: thumbnails are other files for each.
  size(point) {
    return point.sizes[this.metric.key] ?? point.bytes;
  }

  place(point) {
    return {x: this.across(this.size(point)), y: this.down(point.values[this.metric.key])};
  }

  axes() {
    const {left, right, top, bottom} = MARGIN, end = this.width - right, floor = HEIGHT - bottom;
    const {found, digits} = steps(...this.high, 5);
    for (const value of found) {
      svg(this.svg, "line", {x1: left, x2: end, y1: this.down(value), y2: this.down(value), class: "grid"});
      svg(this.svg, "text", {x: left - 6, y: this.down(value) + 4, "text-anchor": "end"}, value.toFixed(digits));
    }
    this.ticks(1, floor + 16, (x, size) => svg(this.svg, "line", {x1: x, x2: x, y1: top, y2: floor, class: "grid"}));
    svg(this.svg, "line", {x1: left, x2: end, y1: floor, y2: floor, class: "axis"});
    svg(this.svg, "text", {x: (left + end) / 2, y: HEIGHT - 8, "text-anchor": "middle"}, "bytes per picture");
    const ratio = bitsPerByte();
    if (!ratio) return;
    svg(this.svg, "line", {x1: left, x2: end, y1: top, y2: top, class: "axis"});
    this.ticks(ratio, top - 6, x => svg(this.svg, "line", {x1: x, x2: x, y1: top, y2: top + 4, class: "axis"}));
    svg(this.svg, "text", {x: (left + end) / 2, y: top - 26, "text-anchor": "middle"}, "bits per pixel");
  }

  // Numbers along the x axis, each byte worth `scale` of them.
  ticks(scale, y, draw) {
    const [low, high] = this.wide.map(Math.exp);
    for (const number of logSteps(low * scale, high * scale, this.width - MARGIN.left - MARGIN.right)) {
      const x = this.across(number / scale);
      draw(x);
      svg(this.svg, "text", {x, y, "text-anchor": "middle"}, Number(number.toPrecision(2)));
    }
  }

  line({curve, points}) {
    const group = svg(this.svg, "g", {"data-method": curve.name});
    for (const point of points) this.interval(group, curve, point);
    const places = points.map(point => this.place(point));
    const path = places.map(({x, y}) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
    svg(group, "polyline", {points: path, ...stroke(curve)});
    const most = Math.max(...data.methods.flatMap(method => method.points.map(point => point.pictures ?? 0)));
    points.forEach((point, number) =>
      mark(group, curve, places[number].x, places[number].y, point.pictures !== null && point.pictures < most));
  }

  interval(group, curve, point) {
    const bounds = point.intervals[this.metric.key];
    if (!bounds) return;
    const x = this.across(this.size(point)), [low, high] = bounds.map(value => this.down(value));
    const d = `M${x} ${low}V${high}M${x - 3} ${low}h6M${x - 3} ${high}h6`;
    svg(group, "path", {d, stroke: curve.colour, opacity: 0.55, class: "interval"});
  }

  // ---- what a mark says

  pointAt(event) {
    const box = this.svg.getBoundingClientRect();
    const away = ({x, y}) => Math.hypot(event.clientX - box.left - x, event.clientY - box.top - y);
    const nearest = this.places.reduce((best, place) => !best || away(place) < away(best) ? place : best, null);
    this.tell(nearest && away(nearest) <= NEAR ? nearest : null);
  }

  walk(event) {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (event.key === "Escape") this.tell(null);
    if (!step || !this.places.length) return;
    event.preventDefault();
    const count = this.places.length, at = this.places.indexOf(this.told);
    this.tell(this.places[at < 0 ? (step > 0 ? 0 : count - 1) : (at + step + count) % count]);
  }

  tell(place) {
    this.told = place;
    this.tip.hidden = !place;
    if (this.ring) this.ring.setAttribute("visibility", place ? "visible" : "hidden");
    if (!place) return;
    fill(this.ring, {cx: place.x, cy: place.y});
    this.tip.textContent = this.words(place);
    const {offsetWidth: wide, offsetHeight: tall} = this.tip;
    const top = this.figure.firstChild.offsetHeight; // of the heading
    const above = place.y - tall - 14;
    this.tip.style.left = `${clamp(place.x - wide / 2, 0, Math.max(0, this.width - wide))}px`;
    this.tip.style.top = `${top + (above > -20 ? above : place.y + 14)}px`;
  }

  words({curve, point}) {
    const key = this.metric.key, bounds = point.intervals[key];
    const size = this.size(point);
    const lines = [curve.name + (point.label && `, ${point.label}`), bytes(size)];
    if (isNumber(point.bpp)) lines[1] += `, ${Number((point.bpp * size / point.bytes).toPrecision(3))} bpp`;
    lines.push(`${this.metric.name} ${written(key, point.values[key])}`);
    if (bounds) lines.push(`interval ${written(key, bounds[0])} to ${written(key, bounds[1])}`);
    if (isNumber(point.pictures)) lines.push(`${point.pictures} pictures`);
    return lines.join("\n");
  }
}

// ---- all of them, and the legend

const KINDS = {thumbnail: "all thumbnails", native: "all in native size"};

function toggle(attributes, members, charts) {
  const button = html(by("legend"), "button", {type: "button", "aria-pressed": "true", ...attributes});
  button.addEventListener("click", () => {
    const shown = !members.every(curve => curve.shown);
    members.forEach(curve => { curve.shown = shown; });
    toggles.forEach(([other, theirs]) => press(other, theirs.every(curve => curve.shown)));
    charts.forEach(chart => chart.draw());
  });
  toggles.push([button, members]);
  return button;
}

const toggles = []; // buttons, and the curves that each of them is about

function legend(charts) {
  for (const curve of curves) {
    const button = toggle({"data-method": curve.name}, [curve], charts);
    const swatch = svg(button, "svg", {width: 34, height: 14, "aria-hidden": "true"});
    svg(swatch, "path", {d: "M1 7H33", ...stroke(curve)});
    mark(swatch, curve, 17, 7, false);
    html(button, "span", {}, curve.name);
  }
  for (const [kind, name] of Object.entries(KINDS)) {
    const members = curves.filter(curve => curve.kind === kind);
    if (members.length > 1) toggle({"data-kind": kind}, members, charts).textContent = name;
  }
}

function plots() {
  if (!data.metrics.length) return;
  by("plots").hidden = false;
  const charts = data.metrics.map(metric => new Chart(by("charts"), metric));
  legend(charts);
  charts.forEach(chart => chart.draw());
  new ResizeObserver(() => charts.forEach(chart => chart.width !== chart.figure.clientWidth && chart.draw()))
    .observe(by("charts"));
}

plots();

