// Where the time went: a row for each step, on the clock of this browser. Only durations come from the server.

import { become, byId, h, milliseconds, svg } from "./dom.js";

const MOST_TICKS = 200;

export class Steps {
  #panel = byId("panel-steps");

  show(source) {
    if (!source || source.state === "waiting") {
      become(this.#panel, [h("p", { class: "hint" }, "Where the time went is drawn here.")]);
      return;
    }
    const whole = Math.max(1, source.elapsedMs);
    const rows = rowsOf(source, whole);
    become(this.#panel, [
      h(
        "table",
        { class: "waterfall" },
        h("caption", { class: "unseen" }, "Steps, in milliseconds from when the job was sent"),
        h("thead", {}, h("tr", {}, ["Step", "When", "Took"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, rows.map((row) => rowOf(row, whole))),
      ),
      h(
        "p",
        { class: "legend" },
        h("i", { class: "key wait" }), "waiting ", h("i", { class: "key compute" }), "computing ",
        h("i", { class: "key pass" }), "passing on ", h("i", { class: "key tick" }), "an answer",
      ),
      source.steps.length > 0 && h("h3", {}, "Models"),
      source.steps.length > 0 && h("ul", { class: "models" }, source.steps.flatMap(({ step, models }) => models.map((model) => modelOf(step, model)))),
      source.notices.length > 0 && h("h3", {}, "Notices"),
      source.notices.length > 0 && h("ul", { class: "notices" }, source.notices.map((notice) => h("li", {}, notice.message || notice.reason))),
    ]);
  }
}

function modelOf(step, model) {
  const hash = model.weights_sha256 && h("code", { title: model.weights_sha256 }, model.weights_sha256.slice(0, 8));
  return h("li", {}, `${step}: ${model.name} ${model.version} `, hash);
}

/** Each row with its parts: [class, from, to] in milliseconds since the job was sent. */
function rowsOf(source, whole) {
  const { ready, steps } = source.clock;
  const before = ready ?? whole;
  const fetched = Math.min(source.fetchMs, before);
  const rows = [{ name: source.url ? "send, fetch" : "send", parts: [["pass", 0, before - fetched], ["compute", before - fetched, before]], took: before }];
  for (const [name, seen] of steps) {
    const report = source.steps.find((step) => step.step === name);
    const { total_ms: total = seen.last - before, queue_ms: queue = 0, compute_ms: compute = 0 } = report?.timings ?? {};
    // The step ended at the latest when its last answer came.
    const from = Math.max(0, seen.last - total);
    const waited = Math.min(queue, total);
    const computed = Math.min(compute, total - waited);
    const parts = report
      ? [["wait", from, from + waited], ["compute", from + waited, from + waited + computed], ["pass", from + waited + computed, seen.last]]
      : [["pass", from, seen.last]];
    const told = report && `${name}: ${milliseconds(waited)} waiting, ${milliseconds(computed)} computing, ${milliseconds(total)} in all`;
    rows.push({ name, parts, ticks: seen.events, took: total, told, failed: report?.failed ?? 0 });
  }
  rows.push({ name: "whole", parts: [["whole", 0, whole]], took: whole, total: true });
  return rows;
}

function rowOf({ name, parts, ticks = [], took, total, told, failed }, whole) {
  const at = (time) => (100 * time) / whole;
  const bars = parts
    .filter(([, from, to]) => to > from)
    .map(([kind, from, to]) => svg("rect", { class: kind, x: at(from), width: Math.max(0.4, at(to - from)), y: 3, height: 14 }));
  const every = Math.ceil(ticks.length / MOST_TICKS);
  const marks = ticks.filter((_, index) => index % every === 0).map((time) => svg("line", { class: "tick", x1: at(time), x2: at(time), y1: 0, y2: 20, "vector-effect": "non-scaling-stroke" }));
  return h(
    "tr",
    { class: total ? "total" : null, title: told ?? null },
    h("th", { scope: "row" }, name, failed > 0 && h("span", { class: "wrong" }, ` ${failed} failed`)),
    h("td", { class: "bars" }, svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, bars, marks), told && h("span", { class: "unseen" }, told)),
    h("td", { class: "number" }, milliseconds(took)),
  );
}
