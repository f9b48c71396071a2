// The cluster live: what limits it now, and its stages, as the orchestrator tells everybody who watches.

import { become, byId, bytes, counted, h, milliseconds, percent, svg } from "./dom.js";
import { inWords } from "./server.js";

const AGAIN_MS = 1000;
const PATIENCE_MS = 5000;
const SAMPLES = 90;
const UNKNOWN = "–";

export class ClusterView {
  #panel = byId("view-cluster");
  #server;
  #shown = false;
  #watching = null;
  #history = new Map();
  #about = null;
  #figures = null;

  constructor(server) {
    this.#server = server;
    document.addEventListener("visibilitychange", () => this.#look());
  }

  /** Look, or look away: nothing is asked while nobody looks. */
  watch(shown) {
    this.#shown = shown;
    this.#look();
  }

  #look() {
    const looks = this.#shown && !document.hidden;
    if (looks === Boolean(this.#watching)) return;
    this.#watching?.abort();
    this.#watching = looks ? new AbortController() : null;
    if (looks) this.#follow(this.#watching.signal);
  }

  async #follow(signal) {
    while (!signal.aborted) {
      let heard = false;
      let failure = { sentence: "The server does not say how the cluster is." };
      try {
        await this.#describe(signal);
        for await (const figures of this.#server.watch(signal)) {
          // A stage that others serve now is described anew.
          if (servedBy(figures) !== servedBy(this.#figures)) await this.#describe(signal);
          for (const stage of figures.stages) this.#note(stage);
          this.#figures = figures;
          heard = true;
          this.#draw(null);
        }
      } catch (error) {
        if (signal.aborted) return;
        failure = inWords(error);
      }
      // A connection that broke is opened again; only where that fails there is something to tell.
      if (!heard) this.#draw(failure);
      await new Promise((again) => setTimeout(again, AGAIN_MS));
    }
  }

  async #describe(signal) {
    this.#about = await this.#server.describe(AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]));
  }

  #note(stage) {
    const samples = this.#history.get(stage.name) ?? [];
    samples.push(loadOf(stage));
    if (samples.length > SAMPLES) samples.shift();
    this.#history.set(stage.name, samples);
  }

  #draw(failure) {
    const about = this.#about;
    const figures = this.#figures;
    const parts = [
      failure && h("p", { class: "failure", role: "alert" }, h("strong", {}, failure.sentence), " Trying again."),
      about?.problems.map((problem) => h("p", { class: "failure" }, problem)),
      figures && h("h2", {}, "What limits now"),
      figures && h("ul", { class: "limits" }, figures.limits.map(limitOf)),
      figures && h("h2", {}, "Stages"),
      figures && h(
        "p",
        { class: "legend" },
        h("i", { class: "key running" }), "running ", h("i", { class: "key waiting" }), "waiting ",
        h("i", { class: "key room" }), `room for. Rates and shares are of the last ${Math.round(figures.window_s)} s.`,
      ),
      figures && h("div", { class: "stages" }, figures.stages.map((stage) => this.#stage(stage))),
      figures && h("h2", {}, "Orchestrator"),
      figures && orchestratorOf(figures),
      about && h("h2", {}, "Pipelines"),
      about && h("div", { class: "pipelines" }, about.pipelines.map((pipeline) => pipelineOf(pipeline, about.default_pipeline))),
      about && h("h2", {}, "Limits"),
      about && limitsOf(about),
    ];
    become(this.#panel, parts);
  }

  #stage(stage) {
    const load = loadOf(stage);
    const all = stage.replicas.length;
    const state = stage.ready === 0 ? "down" : stage.ready < all ? "partly" : "up";
    const words = { down: "no replica is ready", partly: `${stage.ready} of ${all} replicas ready`, up: `${counted(stage.ready, "replica")} ready` }[state];
    const groups = this.#about?.stages.find((other) => other.name === stage.name)?.groups ?? [];
    return h(
      "section",
      { class: "card", "aria-label": `Stage ${stage.name}` },
      h("div", { class: "head" }, h("h3", {}, stage.name), h("span", { class: `state ${state}` }, words)),
      chart(this.#history.get(stage.name) ?? []),
      h(
        "dl",
        { class: "figures" },
        figure("Rate", rate(stage.rate)),
        figure("Busy", share(stage.busy)),
        figure("Waiting", load.queued),
        figure("Oldest wait", milliseconds(stage.wait_ms)),
        figure("p50", time(stage.p50_ms)),
        figure("p99", time(stage.p99_ms)),
        figure("Batch", number(stage.batch)),
        stage.gpu != null && figure("GPU", share(stage.gpu)),
        figure("Restarts", stage.restarts ?? UNKNOWN),
      ),
      all > 0 && replicasOf(stage),
      h("ul", { class: "models" }, groups.flatMap((group) => group.models.map((model) => modelOf(model, group, groups.length > 1)))),
    );
  }
}

/** Which replicas serve which version: what it depends on that what a stage is said to serve still holds. */
function servedBy(figures) {
  return JSON.stringify(figures?.stages.map((stage) => stage.replicas.map(({ address, ready, group }) => [address, ready, group])));
}

function limitOf({ subject, kind, what, help, fault }) {
  const calm = kind === "nothing" || kind === "idle";
  return h(
    "li",
    { class: fault ? "fault" : calm ? "calm" : "" },
    h("p", {}, subject && h("strong", {}, `${subject}: `), what),
    help && h("p", { class: "help" }, `→ ${help}`),
  );
}

function loadOf(stage) {
  const sum = (name) => stage.replicas.reduce((total, replica) => total + replica[name], 0);
  return { running: sum("running"), queued: sum("queued") + stage.backlog, capacity: sum("capacity") };
}

function number(value) {
  if (value == null) return UNKNOWN;
  return value >= 10 || value === 0 ? String(Math.round(value)) : value.toFixed(1);
}

function rate(value) {
  return value == null ? UNKNOWN : `${number(value)}/s`;
}

function share(value) {
  return value == null ? UNKNOWN : percent(value);
}

function time(value) {
  return value == null ? UNKNOWN : milliseconds(value);
}

function figure(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, String(value)));
}

function replicasOf(stage) {
  const columns = ["Replica", "Rate", "Busy", "Waiting", "Oldest wait", "p99"];
  return h(
    "table",
    {},
    h("caption", { class: "unseen" }, `Replicas of ${stage.name}`),
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, stage.replicas.map((replica) => h(
      "tr",
      {},
      h("th", { scope: "row" }, replica.address, !replica.ready && h("span", { class: "wrong" }, ` ${stateOf(replica)}`)),
      h("td", {}, rate(replica.rate)),
      h("td", {}, share(replica.busy)),
      h("td", {}, String(replica.queued)),
      h("td", {}, milliseconds(replica.wait_ms)),
      h("td", {}, time(replica.p99_ms)),
    ))),
  );
}

function stateOf({ state }) {
  return state && state !== "ready" ? state : "not ready";
}

function orchestratorOf({ orchestrator, apis }) {
  const { front } = orchestrator;
  return h(
    "dl",
    { class: "figures" },
    figure("Images", rate(orchestrator.rate)),
    figure("Failing", rate(orchestrator.failed_rate)),
    figure("p50", time(orchestrator.p50_ms)),
    figure("p99", time(orchestrator.p99_ms)),
    figure("Jobs", orchestrator.jobs),
    figure("At work", `${orchestrator.working} / ${orchestrator.working_limit}`),
    figure("Waiting", orchestrator.waiting),
    figure("Event loop", share(front.loop)),
    figure("Held", `${bytes(front.held_bytes)} / ${bytes(front.held_limit_bytes)}`),
    apis.map((api) => figure(`API ${api.name}`, api.broken ? "left alone" : `${api.in_flight} / ${api.limit}, ${api.waiting} waiting`)),
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
