// The charts: plotly draws them; a method hidden in one is hidden in all.

const plots = [];

function sync(source, [changes, traces]) {
  if (!("visible" in changes)) return;
  const states = source.data.map(trace => trace.visible ?? true);
  for (const plot of plots)
    if (plot.data.some((trace, number) => (trace.visible ?? true) !== states[number]))
      Plotly.restyle(plot, {visible: states});
}

function charts() {
  if (!data.figures.length) return;
  by("plots").hidden = false;
  for (const figure of data.figures) {
    const box = html(by("charts"), "figure", {class: "chart", "data-metric": figure.metric});
    html(box, "h3", {}, figure.title);
    const plot = html(box, "div");
    plots.push(plot);
    Plotly.newPlot(plot, figure.data, figure.layout, {responsive: true, displayModeBar: false});
    plot.on("plotly_restyle", event => sync(plot, event));
  }
}

charts();
