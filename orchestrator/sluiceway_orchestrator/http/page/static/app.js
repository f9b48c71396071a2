// Joins the parts of the page.

import { ClusterView } from "./cluster.js";
import { asJson, asMarkdown, asText, toClipboard } from "./copy.js";
import { Detail } from "./detail.js";
import { byId, bytes, counted, h, milliseconds, slices, tabs } from "./dom.js";
import { takeIn } from "./intake.js";
import { howItGoes, SourceList } from "./list.js";
import { Queue } from "./queue.js";
import { Failure, inWords, Server } from "./server.js";
import { Source, textOf } from "./source.js";
import { Steps } from "./steps.js";
import { Tree } from "./tree.js";
import { Palette, Viewer } from "./viewer.js";

// Text and steps are drawn anew at most this often while events come.
const REDRAW_MS = 120;
// And at least this many times as long as it took is left to everything else.
const REST = 10;

const server = new Server();
const palette = new Palette();
const select = (id) => app.selectRegion(id);
const viewer = new Viewer(select, () => app.showDetail());
const tree = new Tree(select);
const detail = new Detail(() => app.selectRegion(null));
const steps = new Steps();
const queue = new Queue(server, (source, regions) => app.changed(source, regions));
const list = new SourceList({
  chosen: (source) => app.show(source),
  again: (source) => app.again(source),
  removed: (source) => app.remove(source),
});

const app = {
  about: null,
  sources: [],
  current: null,
  region: null,
  drawingMs: 0,
  redraw: 0, // timers
  copied: 0,

  /** Take sources in and run them. */
  add(sources) {
    for (const source of sources) {
      this.sources.push(source);
      list.add(source);
      this.run(source);
    }
    if (sources.length) this.show(sources[0]);
  },

  run(source) {
    const pipeline = byId("pipeline").value;
    const params = paramsGiven();
    queue.add(source, () => requestOf(source, pipeline, params));
  },

  again(source) {
    source.reset();
    this.run(source);
    this.changed(source, []);
    if (source === this.current) this.show(source);
  },

  remove(source) {
    queue.drop(source);
    list.remove(source);
    this.sources = this.sources.filter((other) => other !== source);
    if (source === this.current) this.show(this.sources[0] ?? null);
  },

  show(source) {
    slices.clear();
    this.current = source;
    list.select(source);
    viewer.show(source, palette);
    tree.show(source, palette);
    this.selectRegion(null);
    if (source) this.draw(source.ordered);
    this.drawResults();
  },

  /** A source changed, and these regions of it. */
  changed(source, regions) {
    list.update(source);
    if (source.ended) say(`${source.name}: ${howItGoes(source)}`);
    if (source.failure?.reason === "UNAUTHENTICATED") askForToken();
    if (source !== this.current) return;
    if (source.state === "waiting") return void this.show(source);
    viewer.started();
    this.draw(regions);
    if (source.readingOrder) tree.order();
    if (source.ended) this.drawResults();
    else this.redraw ||= setTimeout(() => this.drawResults(), Math.max(REDRAW_MS, REST * this.drawingMs));
  },

  draw(regions) {
    for (const region of regions) {
      slices.add(() => {
        viewer.put(region);
        tree.put(region);
        if (region.id === this.region) this.showDetail();
      });
    }
  },

  drawResults() {
    const began = performance.now();
    clearTimeout(this.redraw);
    this.redraw = 0;
    const source = this.current;
    drawText(source);
    steps.show(source);
    drawFailure(source);
    byId("summary").textContent = summaryOf(source);
    for (const what of ["text", "json", "markdown"]) byId(`copy-${what}`).disabled = !source?.ended;
    this.drawingMs = performance.now() - began;
  },

  showDetail() {
    detail.show(this.current?.regions.get(this.region) ?? null, viewer);
  },

  selectRegion(id) {
    this.region = id;
    const region = this.current?.regions.get(id) ?? null;
    viewer.select(region);
    tree.select(region);
    this.showDetail();
    byId("panel-text").querySelector(".chosen")?.classList.remove("chosen");
    byId("panel-text").querySelector(`[data-region="${id}"]`)?.classList.add("chosen");
  },
};

/** Body and query of the job of a source. Throws Failure for a file that cannot be sent. */
async function requestOf(source, pipeline, params) {
  if (source.image) await check(source.image);
  const named = pipeline ? { pipeline } : {};
  const recognition = { characters: true };
  if (source.url) return [{ ...named, sources: [{ url: source.url, params }], options: { return_images: true, recognition } }, {}];
  if (!Object.keys(params).length) return [source.image, { ...named, ...recognition }];
  return [{ ...named, sources: [{ image: await base64(source.image), params }], options: { recognition } }, {}];
}

/**
 * What a server would refuse before it has read it is not sent: browsers then often tell of a broken connection and not of
 * the answer. The same with a file that cannot be read.
 */
async function check(image) {
  const most = Number(app.about?.max_image_bytes ?? 0);
  if (most && image.size > most) {
    throw new Failure({ reason: "IMAGE_TOO_LARGE", code: "INVALID_ARGUMENT", detail: `it has ${bytes(image.size)}, at most ${bytes(most)} are taken` });
  }
  await image.slice(0, 1).arrayBuffer().catch(() => { throw new Failure({ reason: "NOT_READ" }); });
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

function drawText(source) {
  const panel = byId("panel-text");
  const paragraphs = source?.paragraphs ?? [];
  if (!paragraphs.length) {
    const words = source?.ended && !source.failure ? "No text was read in this image." : "Text appears here as it is read.";
    panel.replaceChildren(h("p", { class: "hint" }, words), ...saidOfAll(source));
    return;
  }
  const word = (region) => [h("span", { "data-region": region.id, class: region.id === app.region ? "chosen" : null }, textOf(region)), " "];
  panel.replaceChildren(
    ...paragraphs.map((lines) => h("p", {}, lines.map((line) => h("span", { class: "line" }, line.flatMap(word))))),
    ...saidOfAll(source),
  );
}

/** What APIs and steps said of the source and its pages. */
function saidOfAll(source) {
  if (!source) return [];
  const of = Object.entries(source.values).map(([name, value]) => [name, JSON.stringify(value)]);
  const pages = source.pageValues.map((value) => [value.step, value.text ?? value.labels.map((label) => label.class_name).join(", ")]);
  const wrong = Object.entries(source.valueErrors).map(([name, error]) => [name, error.message || error.reason]);
  const all = [...of, ...pages, ...wrong];
  return all.length ? [h("dl", { class: "said" }, all.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))] : [];
}

function drawFailure(source) {
  const box = byId("failure");
  box.hidden = source?.state !== "failed";
  if (box.hidden) return;
  const { sentence, detail: said, reason, requestId } = inWords(source.failure);
  box.replaceChildren(
    h("strong", {}, sentence),
    said && h("p", {}, requestId ? `The server said: ${said}` : said),
    h("p", { class: "hint" }, [reason, requestId && `request ${requestId}`].filter(Boolean).join(" · ")),
    h("button", { onclick: () => app.again(source) }, "Try again"),
  );
}

function summaryOf(source) {
  if (!source) return "Nothing was read yet.";
  if (source.state !== "done") return `${source.name}: ${howItGoes(source)}`;
  const words = [...source.regions.values()].filter(textOf).length;
  return `${counted(source.regions.size, "region")}, ${words} with text, in ${milliseconds(source.serverMs)}`;
}

function say(text) {
  byId("said").textContent = text;
}

function paramsGiven() {
  return Object.fromEntries([...byId("params").querySelectorAll("input")].map((input) => [input.name, input.value]));
}

/** The fields for what the chosen pipeline's calls must be given. */
function drawParams() {
  const pipeline = app.about.pipelines.find((item) => item.name === byId("pipeline").value);
  const names = [...new Set(pipeline?.steps.flatMap((step) => step.params) ?? [])];
  byId("params").hidden = !names.length;
  byId("params").replaceChildren(...names.map((name) => h("label", {}, name, h("input", { name, autocomplete: "off" }))));
}

async function begin() {
  const state = byId("server");
  try {
    app.about = await server.describe();
  } catch (error) {
    const { sentence, reason } = inWords(error);
    state.textContent = sentence;
    state.className = "server wrong";
    if (reason === "UNAUTHENTICATED") askForToken();
    else setTimeout(begin, 3000);
    return;
  }
  state.textContent = `Sluiceway ${app.about.server_version}`;
  state.className = "server";
  const chosen = byId("pipeline").value || app.about.default_pipeline;
  byId("pipeline").replaceChildren(...app.about.pipelines.map(({ name }) => h("option", { value: name, selected: name === chosen }, name)));
  drawParams();
  for (const field of byId("address").querySelectorAll("input, button")) field.disabled = !app.about.url_sources;
  byId("url-hint").hidden = app.about.url_sources;
}

function askForToken() {
  const dialog = byId("token-dialog");
  if (!dialog.open) dialog.showModal();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  server.useToken(byId("token").value);
  byId("token").value = "";
  byId("token-dialog").close();
  begin();
  for (const source of app.sources) if (source.failure?.reason === "UNAUTHENTICATED") app.again(source);
});
byId("token-cancel").addEventListener("click", () => byId("token-dialog").close());

takeIn({
  files: (files) => app.add(files.map((file) => new Source(file.name || "image", { image: file }))),
  url: (url) => app.add([new Source(url, { url })]),
});

byId("pipeline").addEventListener("change", drawParams);
byId("clear").addEventListener("click", () => {
  for (const source of [...app.sources]) app.remove(source);
  byId("choose").focus();
});
byId("panel-text").addEventListener("click", (event) => {
  const word = event.target.closest("[data-region]");
  if (word && getSelection().isCollapsed) app.selectRegion(Number(word.dataset.region));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && app.region !== null) app.selectRegion(null);
});
for (const [what, write] of Object.entries({ text: asText, json: asJson, markdown: asMarkdown })) {
  byId(`copy-${what}`).addEventListener("click", async () => {
    const copied = await toClipboard(write(app.current));
    byId("copied").textContent = copied ? "Copied." : "The browser did not let it be copied.";
    clearTimeout(app.copied);
    app.copied = setTimeout(() => { byId("copied").textContent = ""; }, 2000);
  });
}

const cluster = new ClusterView(server);
tabs(document.querySelector("[aria-label=Views]"), (id) => cluster.watch(id === "tab-cluster"));
tabs(byId("results").querySelector("[role=tablist]"));
app.drawResults();
begin();
