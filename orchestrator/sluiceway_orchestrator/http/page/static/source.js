// One source and what became of it. Takes events as they come; knows nothing of how it is shown.

import { Failure } from "./server.js";

// google.rpc.Code, by number.
const CODES = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
];

let made = 0;

export class Source {
  /** `image` is a Blob that is here already; `url` is one that the server fetches. */
  constructor(name, { image = null, url = "" }) {
    this.key = ++made;
    this.name = name;
    this.image = image;
    this.url = url;
    this.reset();
  }

  /** Forget what is known, before it is tried again. */
  reset() {
    this.state = "waiting"; // then sending, running, and at the end done, failed or cancelled
    this.failure = null;
    this.pages = new Map();
    this.regions = new Map();
    this.values = {};
    this.valueErrors = {};
    this.pageValues = [];
    this.readingOrder = null;
    this.lines = [];
    this.blocks = [];
    this.notices = [];
    this.steps = [];
    // Times of this browser's clock, in milliseconds from when the job was sent.
    this.clock = { began: 0, ready: null, ended: null, steps: new Map() };
    this.serverMs = null;
    this.fetchMs = 0;
  }

  get ended() {
    return this.clock.ended !== null;
  }

  begin() {
    this.state = "sending";
    this.clock.began = performance.now();
  }

  /** Milliseconds since the job was sent, up to its end. */
  get elapsedMs() {
    return this.clock.ended ?? performance.now() - this.clock.began;
  }

  fail(failure) {
    this.state = failure.name === "AbortError" ? "cancelled" : "failed";
    this.failure = failure;
    this.clock.ended = performance.now() - this.clock.began;
  }

  /** Take one event. Returns the regions that are new or have changed. */
  apply(event) {
    const now = performance.now() - this.clock.began;
    if (event.source_ready) return this.#ready(event.source_ready, now);
    if (event.regions) return this.#found(event.regions, now);
    if (event.values) return this.#said(event.values, now);
    if (event.done) return this.#done(event.done, now);
    if (event.failed) {
      const { code, ...error } = event.failed.error;
      this.fail(new Failure({ ...error, detail: error.message, code: CODES[code] ?? "UNKNOWN" }));
    }
    return [];
  }

  #ready(ready, now) {
    this.state = "running";
    this.clock.ready = now;
    this.fetchMs = ready.fetch_ms;
    Object.assign(this.values, ready.values);
    for (const [name, error] of Object.entries(ready.call_errors)) this.valueErrors[name] = plainError(error);
    if (ready.image && !this.image) {
      this.image = new Blob([bytesOf(ready.image)]);
    }
    return [];
  }

  #found({ page, step, regions, recognizing }, now) {
    this.#tick(step, now);
    this.pages.set(page.index, page);
    const pending = new Set(recognizing);
    return regions.flatMap((item) => {
      const corners = cornersOf(item.geometry ?? {});
      if (!corners.length) return []; // a shape that is newer than this page
      const region = {
        id: item.id,
        parent: item.parent_id ?? null,
        page: page.index,
        step,
        className: item.class_name,
        confidence: item.confidence,
        corners,
        box: boxOf(corners),
        upright: Boolean(item.geometry.box),
        readings: [],
        pending: pending.has(item.id),
      };
      this.regions.set(region.id, region);
      return [region];
    });
  }

  #said({ step, model, page, subject, values }, now) {
    this.#tick(step, now);
    if (subject === "SUBJECT_PAGE" || subject === "SUBJECT_SOURCE") {
      const [value] = values;
      if (!value) return [];
      const reading = readingOf(value, step, model);
      if (subject === "SUBJECT_PAGE") this.pageValues.push({ page, ...reading });
      else if (reading.error) this.valueErrors[step] = reading.error;
      else this.values[step] = reading.data ?? reading.text;
      return [];
    }
    return values.flatMap((value) => {
      const region = this.regions.get(value.region_id);
      if (!region) return [];
      region.readings.push(readingOf(value, step, model));
      region.pending = false;
      return [region];
    });
  }

  #done(done, now) {
    this.state = "done";
    this.clock.ended = now;
    this.serverMs = done.total_ms;
    this.fetchMs = done.fetch_ms;
    this.readingOrder = done.reading_order.filter((id) => this.regions.has(id));
    this.lines = done.lines;
    this.blocks = done.blocks;
    this.notices = done.notices;
    this.steps = done.steps;
    return [];
  }

  #tick(step, now) {
    const known = this.clock.steps.get(step) ?? { first: now, last: now, events: [] };
    known.last = now;
    known.events.push(now);
    this.clock.steps.set(step, known);
  }

  /** Regions in reading order; before that is known, from top to bottom. */
  get ordered() {
    if (this.readingOrder) return this.readingOrder.map((id) => this.regions.get(id));
    return provisional([...this.regions.values()]);
  }

  /** The text as blocks of lines of regions. Where the server names no lines, regions side by side make one. */
  get paragraphs() {
    const region = (id) => this.regions.get(id);
    if (this.lines.length) {
      const lines = this.lines.map((line) => line.region_ids.map(region).filter((item) => item && textOf(item)));
      const blocks = this.blocks.length ? this.blocks.map((block) => block.lines.map((at) => lines[at] ?? [])) : [lines];
      return blocks.map((block) => block.filter((line) => line.length)).filter((block) => block.length);
    }
    const paragraphs = [];
    let before = null;
    for (const item of this.ordered) {
      if (!textOf(item)) continue;
      if (!before || before.page !== item.page || before.parent !== item.parent) paragraphs.push([[item]]);
      else if (besideEachOther(before, item)) paragraphs.at(-1).at(-1).push(item);
      else paragraphs.at(-1).push([item]);
      before = item;
    }
    return paragraphs;
  }

  /** The models that took part, each once. */
  get models() {
    const all = this.steps.flatMap((step) => step.models);
    return [...new Map(all.map((model) => [`${model.name} ${model.version} ${model.weights_sha256}`, model])).values()];
  }
}

/** What was read in a region; null where nothing reads it. */
export function textOf(region) {
  return region.readings.find((reading) => reading.text !== null)?.text ?? null;
}

export function textConfidenceOf(region) {
  return region.readings.find((reading) => reading.text !== null)?.confidence ?? null;
}

/** The one word for a region: its text, its best label, or what it is. */
export function titleOf(region) {
  return textOf(region) || region.readings.flatMap((reading) => reading.labels)[0]?.class_name || region.className;
}

function bytesOf(base64) {
  // The browser's own way does not hold up the page; older ones have none.
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function plainError(error) {
  return { code: CODES[error.code] ?? "UNKNOWN", reason: error.reason, message: error.message };
}

function readingOf(value, step, model) {
  return {
    step,
    model,
    text: value.text ? value.text.text : null,
    confidence: value.text?.confidence ?? value.classification?.labels[0]?.confidence ?? 0,
    characters: value.text?.characters ?? [],
    labels: value.classification?.labels ?? [],
    embedding: value.embedding?.values ?? [],
    data: value.data ?? null,
    error: value.error ? plainError(value.error) : null,
  };
}

/** Corners clockwise, as [x, y] in pixels of the page; none for a shape that is not known. */
function cornersOf({ box, rotated_box: turned, polygon }) {
  if (box) return [[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]];
  if (polygon) return polygon.points.map(({ x, y }) => [x, y]);
  if (!turned) return [];
  const angle = (turned.angle_degrees * Math.PI) / 180;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([sx, sy]) => {
    const [dx, dy] = [(sx * turned.width) / 2, (sy * turned.height) / 2];
    return [turned.center.x + dx * cos - dy * sin, turned.center.y + dx * sin + dy * cos];
  });
}

function boxOf(corners) {
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function besideEachOther(one, other) {
  const middle = (other.box[1] + other.box[3]) / 2;
  return middle > one.box[1] && middle < one.box[3] && other.box[2] > one.box[2];
}

/** A tree from top to bottom, children right behind their parent. */
function provisional(regions) {
  const children = new Map();
  for (const region of regions) {
    if (!children.has(region.parent)) children.set(region.parent, []);
    children.get(region.parent).push(region);
  }
  const heights = regions.map(({ box }) => box[3] - box[1]).sort((a, b) => a - b);
  const row = Math.max(1, heights[heights.length >> 1] ?? 1);
  const order = (a, b) =>
    a.page - b.page || Math.round(a.box[1] / row) - Math.round(b.box[1] / row) || a.box[0] - b.box[0];
  const below = (parent) => (children.get(parent) ?? []).sort(order).flatMap((region) => [region, ...below(region.id)]);
  return below(null);
}
