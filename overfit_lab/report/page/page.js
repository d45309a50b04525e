"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const runs = new Map(page.runs.map((run) => [run.id, run]));
const state = { layer: "val_loss", slice: 0, cell: null, run: page.start, sort: null, down: false, filter: "", sheet: 0 };
const SHEET = 50;
const PRINT_WIDTH = 640;
const MOST_PRINTED_COLUMNS = 8;
// Ordered colours for ordered lines, of the map viridis.
const VIRIDIS = [[68, 1, 84], [70, 50, 127], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 194, 109], [160, 218, 57], [253, 231, 37]];

const CIVIDIS = [[0, 32, 76], [0, 42, 102], [0, 52, 110], [39, 63, 108], [60, 74, 107], [76, 85, 107], [91, 95, 109], [104, 106, 112], [117, 117, 117], [131, 129, 120], [146, 140, 120], [161, 152, 118], [176, 165, 114], [192, 178, 109], [209, 191, 102], [225, 204, 92], [243, 219, 79], [255, 233, 69]];

const by = (id) => document.getElementById(id);
const printing = () => document.documentElement.classList.contains("printing");

// What comes from a configuration is text, and never a mark that the drawing library would read.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function short(text, most) {
  const letters = [...String(text)];
  return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : String(text);
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/* Drawing */

function theme() {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "ink", "soft", "grid", "rule", "train", "val", "none", "absent", "raised"];
  const colors = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  colors.dark = matchMedia("(prefers-color-scheme: dark)").matches && !printing();
  return colors;
}

function faded(hex, alpha) {
  const parts = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${parts.join(", ")}, ${alpha})`;
}

function mixed(stops, place) {
  const at = Math.min(1, Math.max(0, place)) * (stops.length - 1);
  const [a, b] = [stops[Math.floor(at)], stops[Math.ceil(at)]];
  return a.map((part, k) => Math.round(part + (b[k] - part) * (at % 1)));
}

// The text that is easier to read on a colour, by relative luminance (WCAG 2).
function inkOn(rgb) {
  const [red, green, blue] = rgb.map((part) => (part <= 10 ? part / 3294 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#1a1a1a" : "#ffffff";
}

function widthOf(plot) {
  return printing() ? PRINT_WIDTH : plot.clientWidth;
}

function draw(plot, traces, layout) {
  const colors = theme();
  const whole = {
    width: widthOf(plot),
    paper_bgcolor: colors.paper,
    plot_bgcolor: colors.paper,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colors.soft },
    hoverlabel: { bgcolor: colors.raised, bordercolor: colors.rule, font: { color: colors.ink }, align: "left" },
    showlegend: false,
    dragmode: false,
    ...layout,
  };
  return Plotly.react(plot, traces, whole, { displayModeBar: false, scrollZoom: false, doubleClick: false });
}

function axis(title, colors, more = {}) {
  return {
    title: { text: plain(title), font: { size: 12 }, standoff: 8 },
    fixedrange: true,
    zeroline: false,
    gridcolor: colors.grid,
    linecolor: colors.rule,
    tickcolor: colors.rule,
    automargin: true,
    ...more,
  };
}

function roundTicks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades < 2.2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const step of steps) {
      const value = Number((step * 10 ** power).toPrecision(1));
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
    }
  }
  return ticks;
}

function numberLabel(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return value >= 1e-4 || value === 0 ? String(Number(value.toPrecision(3))) : value.toExponential(0);
}

function logAxis(low, high, pad) {
  const ratio = (high / low) ** pad;
  const [from, to] = [low / ratio, high * ratio];
  const ticks = roundTicks(from, to);
  return { type: "log", range: [Math.log10(from), Math.log10(to)], tickvals: ticks, ticktext: ticks.map(numberLabel) };
}

// The sizes themselves as ticks, where there is room for each.
function sizeTicks(sizes, width) {
  const known = [...new Set(sizes)].sort((a, b) => a - b);
  const span = Math.log(known.at(-1) / known[0]) || 1;
  const apart = known.slice(1).map((size, i) => (Math.log(size / known[i]) / span) * (width - 80));
  return known[0] > 0 && apart.every((gap) => gap > 56) ? { tickvals: known, ticktext: known.map((size) => size.toLocaleString("en")) } : {};
}

function linearAxis(low, high, pad) {
  const room = pad * (high - low || Math.abs(high) || 1);
  return { range: [low - room, high + room], nticks: 7 };
}

function band(x, low, high, color) {
  const there = x.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
  const back = [...there].reverse();
  return {
    x: [...there.map((i) => x[i]), ...back.map((i) => x[i])],
    y: [...there.map((i) => high[i]), ...back.map((i) => low[i])],
    mode: "lines",
    line: { width: 0 },
    fill: "toself",
    fillcolor: color,
    hoverinfo: "skip",
  };
}

/* The map */

const slice = () => page.map.slices[state.slice];

function valueRange(values) {
  if (!values.length) return null;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && high > low;
  const scaled = (value) => (log ? Math.log10(value) : value);
  // A single value has a colour from the middle.
  const ends = low === high ? [low - 1, high + 1] : [scaled(low), scaled(high)];
  const share = (value) => (scaled(value) - ends[0]) / (ends[1] - ends[0]);
  return { low, high, ends, scaled, share };
}

function faceText(face, width, height) {
  const fits = (text) => text.length * 6.3 < width;
  const text = fits(face.text) ? plain(face.text) : "";
  return text && face.beneath && height >= 38 && fits(face.beneath) ? `${text}<br>${plain(face.beneath)}` : text;
}

function cellWords(cell) {
  const { x, y } = page.map;
  const where = [x.name && `${x.name} ${x.labels[cell.x]}`, y.name && `${y.name} ${y.labels[cell.y]}`, slice().label];
  return where.filter(Boolean).join(", ");
}

function cellLines(cell) {
  if (!cell.runs.length) return [cell.faces.val_loss.text];
  const said = (face) => [face.text, face.beneath].filter(Boolean).join(" ");
  const { val_loss: loss, onset, gap } = cell.faces;
  const lines = [`${loss.value === null ? "" : "loss "}${said(loss)}`, `${onset.value === null ? "" : "onset "}${said(onset)}`];
  if (gap.value !== null) lines.push(`gap ${said(gap)}`);
  return [...new Set(lines)];
}

function drawMap() {
  const plot = by("map-plot");
  const colors = theme();
  const { x, y, layers } = page.map;
  const layer = layers.find((one) => one.id === state.layer);
  const [columns, rows] = [x.labels.length, y.labels.length];
  const rowHeight = printing() && rows <= 8 ? 44 : rows <= 4 ? 66 : rows <= 8 ? 58 : rows <= 16 ? 40 : 24;
  const left = Math.min(110, 30 + 7 * Math.max(...y.labels.map((label) => Math.min(label.length, 12))));
  const cellWidth = (widthOf(plot) - left - 10) / columns;
  const faces = slice().cells.map((cell) => cell.faces[state.layer]);
  const range = valueRange(faces.filter((face) => face.value !== null).map((face) => face.value));
  const empty = () => Array.from({ length: rows }, () => Array(columns).fill(null));
  const [z, words, hover] = [empty(), empty(), empty()];
  const labels = { x: [], y: [], text: [], ink: [] };
  let unlabelled = 0;
  for (const cell of slice().cells) {
    const face = cell.faces[state.layer];
    const counted = face.value !== null;
    const text = faceText(face, cellWidth, rowHeight) || (counted ? "" : { failed: "✕", missing: "·" }[cell.state] ?? "–");
    unlabelled += text ? 0 : 1;
    (counted ? z : words)[cell.y][cell.x] = counted ? range.scaled(face.value) : cell.runs.length ? 0 : 1;
    hover[cell.y][cell.x] = [cellWords(cell), ...cellLines(cell)].map(plain).join("<br>");
    labels.x.push(cell.x);
    labels.y.push(cell.y);
    labels.text.push(text);
    labels.ink.push(counted ? inkOn(mixed(CIVIDIS, range.share(face.value))) : colors.soft);
  }
  const common = {
    type: "heatmap", xgap: 2, ygap: 2, customdata: hover, hovertemplate: "%{customdata}<extra></extra>",
    hoverongaps: false, showscale: false,
  };
  const traces = [{ ...common, z: words, zmin: 0, zmax: 1, colorscale: [[0, colors.none], [1, colors.absent]] }];
  if (range) {
    const ticks = range.low === range.high ? [range.low] : [range.low, range.high];
    traces.push({
      ...common, z, zmin: range.ends[0], zmax: range.ends[1],
      colorscale: CIVIDIS.map((rgb, i) => [i / (CIVIDIS.length - 1), `rgb(${rgb.join(", ")})`]),
      // Where cells say their values, a scale would say them again.
      showscale: unlabelled > 0,
      colorbar: {
        orientation: "h", thickness: 8, len: 0.6, x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", outlinewidth: 0,
        tickvals: ticks.map(range.scaled), ticktext: ticks.map(numberLabel), ticklabelposition: "outside top",
      },
    });
  }
  traces.push({ x: labels.x, y: labels.y, text: labels.text, mode: "text", textfont: { size: 12, color: labels.ink }, hoverinfo: "skip", cliponaxis: false });
  const tickStep = Math.max(1, Math.ceil((7 * Math.max(...x.labels.map((label) => Math.min(label.length, 12)))) / cellWidth));
  const every = (labels, step) => labels.map((label, i) => (i % step ? "" : plain(short(label, 14))));
  const rowStep = rowHeight < 14 ? 2 : 1;
  draw(plot, traces, {
    height: rows * rowHeight + 70 + (unlabelled ? 36 : 0),
    margin: { l: left, r: 10, t: unlabelled ? 44 : 8, b: 54 },
    xaxis: axis(x.name, colors, { tickvals: x.labels.map((_, i) => i), ticktext: every(x.labels, tickStep), range: [-0.5, columns - 0.5], showgrid: false, ticks: "", tickangle: 0, automargin: false }),
    yaxis: axis(y.name, colors, { tickvals: y.labels.map((_, i) => i), ticktext: every(y.labels, rowStep), range: [rows - 0.5, -0.5], showgrid: false, ticks: "", automargin: false }),
    shapes: mark(colors),
  });
  plot.setAttribute("aria-label", `Map: ${layer.title} over ${[x.name, y.name].filter(Boolean).join(" and ")}. The table below it has every value.`);
  by("map-caption").textContent = layer.caption + mapGaps(labels.text);
}

// A frame around the cell whose curves are shown.
function mark(colors) {
  const cell = slice().cells.find((one) => one.runs.includes(state.run));
  if (!cell) return [];
  const [x, y] = [cell.x, cell.y];
  return [{ type: "rect", x0: x - 0.5, x1: x + 0.5, y0: y - 0.5, y1: y + 0.5, line: { color: colors.val, width: 3 } }];
}

// What cells without a number are, and the marks that stand for words where these do not fit.
function mapGaps(texts) {
  const of = (state) => slice().cells.filter((cell) => cell.state === state).length;
  const [failed, missing] = [of("failed"), of("missing")];
  const mark = (sign) => (texts.includes(sign) ? ` (${sign})` : "");
  const said = [failed && `${failed} failed${mark("✕")}`, missing && `${missing} without a result${mark("·")}`, texts.includes("–") && "– where there is no onset"];
  const words = said.filter(Boolean).join(", ");
  return words ? ` Cells: ${words}.` : "";
}

function drawMapTable() {
  const { x, y } = page.map;
  const table = document.querySelector("#map-table table");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  head.append(element("td", ""), ...x.labels.map((label) => element("th", `${x.name} ${label}`, { scope: "col" })));
  const body = table.createTBody();
  const rows = y.labels.map((label) => {
    const row = body.insertRow();
    row.append(element("th", y.name ? `${y.name} ${label}` : "", { scope: "row" }));
    return row;
  });
  for (const cell of slice().cells) {
    const place = rows[cell.y].insertCell();
    const lines = cellLines(cell);
    if (!cell.runs.length) {
      place.append(element("span", lines[0], { class: "empty" }));
      continue;
    }
    const button = element("button", null, { type: "button", "aria-pressed": cell.runs.includes(state.run) });
    lines.forEach((line, i) => button.append(...(i ? [element("br", null)] : []), line));
    button.addEventListener("click", () => pick(cell.runs[0]));
    place.append(button);
    button.dataset.runs = cell.runs.join(" ");
  }
  const captions = page.map.layers.map((layer) => layer.caption.replace(/\.$/, ""));
  table.createCaption().append(element("span", `Each cell: ${captions.join("; ")}.`));
}

function pressButtons() {
  for (const button of document.querySelectorAll("#map-table button")) {
    button.setAttribute("aria-pressed", button.dataset.runs.split(" ").includes(state.run));
  }
}

/* The curves of a run */

function pick(id, { show = true } = {}) {
  state.run = id;
  if (page.map) {
    const place = page.map.slices.findIndex((one) => one.cells.some((cell) => cell.runs.includes(id)));
    if (place >= 0 && place !== state.slice) {
      state.slice = place;
      by("slice").value = place;
      if (by("map-table").open) drawMapTable();
      drawMap();
    } else {
      Plotly.relayout(by("map-plot"), { shapes: mark(theme()) });
    }
    pressButtons();
  }
  drawRun();
  if (!show) return;
  // Where both stand side by side nothing moves beneath the pointer.
  const { top, bottom } = by("curves-plot").getBoundingClientRect();
  if (bottom < 100 || top > innerHeight - 100) by("curves").scrollIntoView();
}

function siblings(id) {
  const cell = page.map?.slices.flatMap((one) => one.cells).find((one) => one.runs.includes(id));
  if (cell) return cell.runs;
  return page.map ? [id] : page.runs.filter((run) => page.curves[run.id]).map((run) => run.id);
}

function fillSeeds() {
  const own = siblings(state.run);
  by("seed-field").hidden = own.length < 2;
  by("seed").replaceChildren(...own.map((id) => element("option", page.map ? `seed ${runs.get(id).seed}` : runs.get(id).name, { value: id })));
  by("seed").value = state.run;
}

function drawRun() {
  const run = runs.get(state.run);
  const curves = page.curves[state.run];
  by("run-name").textContent = run.name;
  by("run-words").textContent = run.sentences.join(" ");
  by("clean-words").hidden = !curves.val_clean.length;
  by("band-words").textContent = curves.fits > 1 ? ` (mean, range over ${curves.fits} fits)` : "";
  by("onset-words").hidden = !run.onset;
  by("descriptive").hidden = !run.descriptive.length;
  document.querySelector("#descriptive dl").replaceChildren(
    ...run.descriptive.flatMap(([name, value]) => [element("dt", name), element("dd", value)]),
  );
  fillSeeds();
  drawCurves(run, curves);
}

/* Where an epoch stands: on a logarithmic axis, up to epoch 1 a linear one, if the onset is early in a long training */

function epochPlace(early) {
  return early ? (epoch) => (epoch <= 1 ? 0.4 * epoch : 0.4 + Math.log10(epoch)) : (epoch) => epoch;
}

function epochAxis(last, early) {
  if (!early) return { range: [-0.01 * last, 1.01 * last], nticks: 6 };
  const ticks = [0];
  for (let tick = 1; tick <= last; tick *= 10) ticks.push(tick);
  const end = epochPlace(true)(last);
  return { range: [-0.01 * end, 1.01 * end], tickvals: ticks.map(epochPlace(true)), ticktext: ticks.map(String) };
}

function curveTraces(curves, place, colors) {
  const traces = [];
  const epochs = curves.epochs.map(place);
  for (const [name, said] of [["train", "train"], ["val", "validation"]]) {
    const [low, high] = curves[`${name}_band`];
    if (low) traces.push(band(epochs, low, high, faded(colors[name], 0.18)));
    traces.push({
      x: epochs, y: curves[name], text: curves.epochs, mode: "lines", name: said, line: { color: colors[name], width: 2 },
      hovertemplate: `epoch %{text}: ${said} %{y:.4g}<extra></extra>`,
    });
  }
  if (curves.val_clean.length) {
    traces.push({
      x: epochs, y: curves.val_clean, text: curves.epochs, mode: "lines", line: { color: colors.val, width: 1.5, dash: "4px,3px" },
      hovertemplate: "epoch %{text}: validation against the right labels %{y:.4g}<extra></extra>",
    });
  }
  return traces;
}

function onsetShapes(onset, place, colors) {
  if (!onset) return [];
  const over = { yref: "paper", y0: 0, y1: 1, layer: "below" };
  // An interval of one epoch is still to be seen.
  return [
    { ...over, type: "rect", x0: place(onset.low - 0.5), x1: place(onset.high + 0.5), fillcolor: faded(colors.ink, 0.13), line: { width: 0 } },
    { ...over, type: "line", x0: place(onset.epoch), x1: place(onset.epoch), line: { color: colors.ink, width: 1.3 } },
  ];
}

function drawCurves(run, curves) {
  const plot = by("curves-plot");
  const colors = theme();
  const place = epochPlace(curves.early);
  const traces = curveTraces(curves, place, colors);
  const best = curves.epochs.indexOf(run.best);
  if (best >= 0 && curves.val[best] !== null) {
    traces.push({
      x: [place(run.best)], y: [curves.val[best]], text: [run.best], mode: "markers", cliponaxis: false,
      marker: { size: 9, color: colors.paper, line: { color: colors.val, width: 1.8 } },
      hovertemplate: "best epoch %{text}: %{y:.4g}<extra></extra>",
    });
  }
  const last = curves.epochs.at(-1);
  const [low, high] = curves.span ?? [0, 1];
  draw(plot, traces, {
    height: page.map && page.map.y.labels.length > 4 ? 360 : 302,
    margin: { l: 58, r: 12, t: 12, b: 48 },
    xaxis: axis("epoch (completed passes)", colors, { ...epochAxis(last, curves.early), showgrid: false }),
    yaxis: axis(page.loss, colors, curves.log ? logAxis(low, high, 0.05) : linearAxis(low, high, 0.05)),
    shapes: onsetShapes(run.onset, place, colors),
    annotations: run.onset
      ? [{ x: place(run.onset.epoch), y: 1, yref: "paper", xanchor: place(run.onset.epoch) > place(last) / 2 ? "right" : "left", yanchor: "top", text: ` onset ${run.onset.epoch} [${run.onset.low}, ${run.onset.high}] `, showarrow: false, font: { color: colors.ink } }]
      : [],
  });
  plot.setAttribute("aria-label", `Train and validation loss of ${run.name} over ${last} epochs. ${run.sentences.join(" ")}`);
}

/* Loss against size, and against train rows */

function lineColors(count, colors) {
  const [from, to] = colors.dark ? [0.35, 1] : [0, 0.85];
  return Array.from({ length: count }, (_, i) => {
    const shade = mixed(VIRIDIS, from + ((to - from) * i) / Math.max(1, count - 1));
    return `#${shade.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
  });
}

function lineLegend(plot, chart, shades) {
  const figure = plot.parentElement;
  figure.querySelector(".legend")?.remove();
  if (chart.lines.length < 2) return;
  const list = element("ul", null, { class: "legend" });
  chart.lines.forEach((line, i) => {
    const item = element("li", null);
    const swatch = element("i", null, { class: "val" });
    swatch.style.borderColor = shades[i];
    item.append(swatch, line.label);
    list.append(item);
  });
  figure.prepend(list);
}

function drawLines(id, chart) {
  const plot = by(`${id}-plot`);
  const colors = theme();
  const single = chart.lines.length === 1;
  const shades = single ? [colors.val] : lineColors(chart.lines.length, colors);
  const traces = [];
  chart.lines.forEach((line, i) => {
    const edge = (sign) => line.val.map((value, k) => (value === null ? null : value + sign * (line.se[k] ?? 0)));
    traces.push(band(line.x, edge(-1), edge(1), faded(shades[i], 0.1)));
    traces.push({ x: line.x, y: line.train, mode: "lines", line: { color: single ? colors.train : shades[i], width: 1.2, dash: "4px,3px" }, hovertemplate: `${plain(line.label)}<br>%{x}: train %{y:.4g}<extra></extra>` });
    traces.push({ x: line.x, y: line.val, mode: "lines+markers", line: { color: shades[i], width: 2 }, marker: { size: 6 }, hovertemplate: `${plain(line.label)}<br>%{x}: validation %{y:.4g}<extra></extra>` });
  });
  lineLegend(plot, chart, shades);
  const known = chart.lines.flatMap((line) => [...line.train, ...line.val.flatMap((value, k) => (value === null ? [] : [value - (line.se[k] ?? 0), value + (line.se[k] ?? 0)]))]).filter((value) => value !== null);
  const lowest = Math.min(...chart.lines.flatMap((line) => line.val.filter((value) => value !== null)));
  // A train loss that vanishes would flatten the rest.
  const [low, high] = [Math.max(Math.min(...known), lowest / 10), Math.max(...known)];
  const sizes = chart.lines.flatMap((line) => line.x);
  const [smallest, largest] = [Math.min(...sizes), Math.max(...sizes)];
  const side = (text, x, anchor) => ({ text: plain(text).replace(": ", ":<br>"), xref: "paper", x, y: 1, yref: "paper", xanchor: anchor, yanchor: "bottom", align: anchor, showarrow: false, font: { size: 12, color: colors.soft } });
  const sides = [chart.sides[0] && side(chart.sides[0], 0, "left"), chart.sides[1] && side(chart.sides[1], 1, "right")];
  draw(plot, traces, {
    height: 400,
    margin: { l: 58, r: 12, t: 52, b: 48 },
    xaxis: axis(chart.x_title, colors, { ...(smallest > 0 ? logAxis(smallest, largest, 0.04) : linearAxis(smallest, largest, 0.04)), ...sizeTicks(sizes, widthOf(plot)), showgrid: false }),
    yaxis: axis(page.loss, colors, low > 0 && high > 8 * low ? logAxis(low, high, 0.05) : linearAxis(low, high, 0.05)),
    annotations: sides.filter(Boolean),
    shapes: [{ type: "line", x0: chart.lowest, x1: chart.lowest, yref: "paper", y0: 0, y1: 1, layer: "below", line: { color: colors.soft, width: 1, dash: "dot" } }],
  });
  plot.setAttribute("aria-label", `Loss against ${chart.x_title}. ${chart.sentence}`);
}

/* The table of runs */

function compareKeys(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  const sign = state.down ? -1 : 1;
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function chosenRuns() {
  const wanted = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const said = (run) => [run.id, run.name, run.status, ...run.cells].join(" ").toLowerCase();
  const found = wanted.length ? page.runs.filter((run) => wanted.every((word) => said(run).includes(word))) : [...page.runs];
  if (state.sort !== null) found.sort((a, b) => compareKeys(a.keys[state.sort], b.keys[state.sort]));
  return found;
}

function runRow(run) {
  const row = element("tr", null, { "data-run": run.id });
  const error = !page.curves[run.id];
  const settings = page.columns.length - 8;
  run.cells.forEach((cell, i) => {
    if (error && i > settings + 1) return;
    const place = element("td", cell, i === settings + 1 ? { class: "words" } : {});
    if (error && i === settings + 1) {
      place.className = "wide";
      place.colSpan = run.cells.length - i;
    }
    row.append(place);
  });
  const last = element("td", null);
  if (!error) {
    const button = element("button", "curves", { type: "button", class: "show", "aria-label": `curves of ${run.name}` });
    button.addEventListener("click", () => pick(run.id));
    last.append(button, " ");
  }
  last.append(element("a", run.id, { href: `../runs/${encodeURIComponent(run.id)}/` }));
  row.append(last);
  return row;
}

function drawRuns() {
  const found = chosenRuns();
  const sheets = Math.max(1, Math.ceil(found.length / SHEET));
  state.sheet = Math.min(Math.max(0, state.sheet), sheets - 1);
  const from = state.sheet * SHEET;
  const shown = printing() ? found : found.slice(from, from + SHEET);
  document.querySelector("#runs-table tbody").replaceChildren(...shown.map(runRow));
  const all = page.runs.length;
  by("shown").textContent = found.length === all ? `${all} run${all === 1 ? "" : "s"}` : `${found.length} of ${all} runs`;
  by("pager").hidden = sheets === 1;
  by("page-number").textContent = `${from + 1}–${from + shown.length} of ${found.length}`;
  by("before").disabled = state.sheet === 0;
  by("after").disabled = state.sheet === sheets - 1;
  document.querySelectorAll("#runs-table thead th").forEach((head, i) => {
    if (i === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function listenToRuns() {
  for (const button of document.querySelectorAll("#runs-table thead button")) {
    button.addEventListener("click", () => {
      const column = Number(button.dataset.column);
      state.down = state.sort === column && !state.down;
      state.sort = column;
      state.sheet = 0;
      drawRuns();
    });
  }
  by("filter").addEventListener("input", (event) => {
    state.filter = event.target.value;
    state.sheet = 0;
    drawRuns();
  });
  by("before").addEventListener("click", () => { state.sheet -= 1; drawRuns(); });
  by("after").addEventListener("click", () => { state.sheet += 1; drawRuns(); });
}

/* Everything */

function drawFigures() {
  if (page.map) drawMap();
  if (page.start) drawRun();
  if (page.capacity) drawLines("capacity", page.capacity);
  if (page.learning) drawLines("learning", page.learning);
}

function listenToMap() {
  for (const button of document.querySelectorAll("#layers input")) {
    button.addEventListener("change", () => { state.layer = button.value; drawMap(); });
  }
  by("slice")?.addEventListener("change", (event) => {
    state.slice = Number(event.target.value);
    drawMap();
    if (by("map-table").open) drawMapTable();
  });
  // By place: the library's own clicks are those of what it last saw hovered, and a quick one is lost.
  by("map-plot").addEventListener("click", (event) => {
    const area = by("map-plot").querySelector(".nsewdrag").getBoundingClientRect();
    const x = Math.floor(((event.clientX - area.left) / area.width) * page.map.x.labels.length);
    const y = Math.floor(((event.clientY - area.top) / area.height) * page.map.y.labels.length);
    const cell = slice().cells.find((one) => one.x === x && one.y === y);
    if (cell?.runs.length) pick(cell.runs[0]);
  });
  by("map-table").addEventListener("toggle", () => { if (by("map-table").open) drawMapTable(); });
}

function forPaper(on) {
  document.documentElement.classList.toggle("printing", on);
  const table = by("map-table");
  if (table && page.map.x.labels.length <= MOST_PRINTED_COLUMNS) {
    table.open = on;
    if (on) drawMapTable();
  }
  drawFigures();
  if (page.runs.length) drawRuns();
}

function afterwards(action, wait) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}

function begin() {
  if (page.map && page.start) state.slice = Math.max(0, page.map.slices.findIndex((one) => one.cells.some((cell) => cell.runs.includes(page.start))));
  if (by("slice")) by("slice").value = state.slice;
  drawFigures();
  if (page.map) listenToMap();
  by("seed")?.addEventListener("change", (event) => pick(event.target.value, { show: false }));
  if (page.runs.length) {
    drawRuns();
    listenToRuns();
  }
  for (const button of document.querySelectorAll("button.more")) {
    button.addEventListener("click", () => {
      button.previousElementSibling.querySelector("table").classList.remove("folded");
      button.remove();
    });
  }
  let width = innerWidth;
  // A phone's bars come and go with scrolling: only the width matters.
  addEventListener("resize", afterwards(() => { if (innerWidth !== width) { width = innerWidth; drawFigures(); } }, 100));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawFigures);
  addEventListener("beforeprint", () => forPaper(true));
  addEventListener("afterprint", () => forPaper(false));
}

begin();
