"use strict";
// Draws every chart of the page. Colours of axes and words come from the page's style, so that they follow its scheme.
const MARKS = ["#4c84c4", "#dd7f2f", "#3a9c76", "#b46fb8", "#b0902a", "#d45c62", "#6b8e23", "#9a7157", "#35a0b5", "#8a8f98"];
const CONFIG = {
  aria: false, // the element around it says what it shows
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: null },
  mark: { color: MARKS[0], aria: false },
  range: { category: MARKS, ramp: ["#c6dbf3", "#4c84c4", "#143f73"] },
  axis: { aria: false, labelLimit: 150, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", gridOpacity: 0.6 },
  axisXQuantitative: { labelBound: true }, // a label that would stand out of the chart is left out
  legend: { aria: false, orient: "top", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", columns: innerWidth < 600 ? 2 : 5, labelLimit: 140 },
  axisQuantitative: { tickCount: 5 },
  rule: { color: "#8a8f98", aria: false },
  line: { strokeWidth: 2 },
};
for (const place of document.querySelectorAll("[data-chart]")) {
  const spec = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  vegaEmbed(place, spec, { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: CONFIG });
}
for (const [event, open] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => document.querySelectorAll("details:not(.long)").forEach((table) => { table.open = open; }));
}
