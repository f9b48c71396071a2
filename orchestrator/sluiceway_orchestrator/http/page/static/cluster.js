// The cluster as the server describes it to every client, again and again while somebody looks.

import { become, byId, bytes, counted, h, milliseconds, svg } from "./dom.js";
import { inWords } from "./server.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const SAMPLES = 90;

export class ClusterView {
  #panel = byId("view-cluster");
  #server;
  #shown = false;
  #asking = false;
  #timer = 0;
  #history = new Map();
  #last = null;

  constructor(server) {
    this.#server = server;
    document.addEventListener("visibilitychange", () => this.#ask());
  }

  /** Look, or look away: nothing is asked while nobody looks. */
  watch(shown) {
    this.#shown = shown;
    this.#ask();
  }

  async #ask() {
    clearTimeout(this.#timer);
    if (!this.#shown || document.hidden || this.#asking) return;
    this.#asking = true;
    try {
      this.#last = await this.#server.describe(AbortSignal.timeout(PATIENCE_MS));
      for (const stage of this.#last.stages) this.#note(stage);
      this.#draw(this.#last, null);
    } catch (error) {
      this.#draw(this.#last, inWords(error));
    } finally {
      this.#asking = false;
      this.#timer = setTimeout(() => this.#ask(), EVERY_MS);
    }
  }

  #note(stage) {
    const samples = this.#history.get(stage.name) ?? [];
    samples.push(loadOf(stage));
    if (samples.length > SAMPLES) samples.shift();
    this.#history.set(stage.name, samples);
  }

  #draw(about, failure) {
    const parts = [
      failure && h("p", { class: "failure", role: "alert" }, h("strong", {}, failure.sentence), " Trying again."),
      about?.problems.map((problem) => h("p", { class: "failure" }, problem)),
      about && h(
        "p",
        { class: "legend" },
        h("i", { class: "key running" }), "running ", h("i", { class: "key waiting" }), "waiting ",
        h("i", { class: "key room" }), "room for. Asked anew every second; load is what each replica said with its latest answer.",
      ),
      about && h("div", { class: "stages" }, about.stages.map((stage) => this.#stage(stage))),
      about && h("h2", {}, "Pipelines"),
      about && h("div", { class: "pipelines" }, about.pipelines.map((pipeline) => pipelineOf(pipeline, about.default_pipeline))),
      about && h("h2", {}, "Limits"),
      about && limitsOf(about),
    ];
    become(this.#panel, parts);
  }

  #stage(stage) {
    const load = loadOf(stage);
    const ready = stage.endpoints.filter((endpoint) => endpoint.ready).length;
    const state = ready === 0 ? "down" : ready < stage.endpoints.length ? "partly" : "up";
    const words = { down: "no replica is ready", partly: `${ready} of ${stage.endpoints.length} replicas ready`, up: `${counted(ready, "replica")} ready` }[state];
    return h(
      "section",
      { class: "card", "aria-label": `Stage ${stage.name}` },
      h("div", { class: "head" }, h("h2", {}, stage.name), h("span", { class: `state ${state}` }, words)),
      chart(this.#history.get(stage.name) ?? []),
      h(
        "dl",
        { class: "figures" },
        figure("Running", load.running),
        figure("Waiting", load.queued),
        figure("Room for", load.capacity),
        figure("Last wait", milliseconds(load.queueMs)),
      ),
      stage.endpoints.length > 0 && replicasOf(stage),
      h("ul", { class: "models" }, stage.groups.flatMap((group) => group.models.map((model) => modelOf(model, group, stage.groups.length > 1)))),
    );
  }
}

function loadOf(stage) {
  const loads = stage.endpoints.filter((endpoint) => endpoint.ready).map((endpoint) => endpoint.load);
  const sum = (name) => loads.reduce((total, load) => total + load[name], 0);
  return {
    running: sum("running"),
    queued: sum("queued"),
    capacity: sum("capacity"),
    queueMs: Math.max(0, ...loads.map((load) => load.queue_ms)),
  };
}

function figure(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, String(value)));
}

function replicasOf(stage) {
  const columns = ["Replica", "Running", "Waiting", "Last wait"];
  return h(
    "table",
    {},
    h("caption", { class: "unseen" }, `Replicas of ${stage.name}`),
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, stage.endpoints.map(({ address, ready, load }) => h(
      "tr",
      {},
      h("th", { scope: "row" }, address, !ready && h("span", { class: "wrong" }, " not ready")),
      h("td", {}, `${load.running} / ${load.capacity}`),
      h("td", {}, String(load.queued)),
      h("td", {}, milliseconds(load.queue_ms)),
    ))),
  );
}

function modelOf({ model, head, backend, precision, device }, group, several) {
  const facts = [head, backend, precision, device, counted(group.workers, "worker"), several && `version ${group.name}`];
  return h("li", {}, h("strong", {}, `${model.name} ${model.version}`), ` ${facts.filter(Boolean).join(" · ")}`);
}

function pipelineOf(pipeline, usual) {
  const steps = pipeline.steps.map((step) => h(
    "li",
    { class: step.kind },
    h("strong", {}, step.name),
    h("span", {}, [step.kind, step.of ? `in ${step.of}` : "", step.stage || step.api].filter(Boolean).join(" · ")),
  ));
  return h("section", { class: "card", "aria-label": `Pipeline ${pipeline.name}` }, h("h3", {}, pipeline.name, pipeline.name === usual && h("span", { class: "hint" }, " the default")), h("ol", { class: "flow" }, steps));
}

function limitsOf(about) {
  return h(
    "dl",
    { class: "figures" },
    figure("Largest image", bytes(about.max_image_bytes)),
    figure("Sources in a job", about.max_sources),
    figure("Deadline", milliseconds(about.default_deadline_ms)),
    figure("Longest deadline", milliseconds(about.max_deadline_ms)),
    figure("URLs", about.url_sources ? "fetched" : "not fetched"),
    about.apis.length > 0 && figure("APIs", about.apis.map((api) => api.name).join(", ")),
  );
}

/** Items running and waiting over the last minutes, against what the stage has room for. */
function chart(samples) {
  const top = Math.max(1, ...samples.map((sample) => Math.max(sample.running + sample.queued, sample.capacity)));
  const y = (value) => 40 - (38 * value) / top;
  const x = (index) => SAMPLES - samples.length + index;
  const line = (value) => samples.map((sample, index) => `${x(index)},${y(value(sample))}`).join(" ");
  const running = (sample) => sample.running;
  const all = (sample) => sample.running + sample.queued;
  const area = (value) => `${x(0)},40 ${line(value)} ${x(samples.length - 1)},40`;
  return svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${SAMPLES - 1} 41`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polygon", { class: "waiting", points: area(all) }),
    svg("polygon", { class: "running", points: area(running) }),
    svg("polyline", { class: "room", points: line((sample) => sample.capacity), "vector-effect": "non-scaling-stroke" }),
  );
}
