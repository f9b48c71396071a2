// The sources that came in, each with a small picture and how it goes.

import { byId, counted, h, milliseconds } from "./dom.js";
import { inWords } from "./server.js";

const THUMB_PX = 96;

export class SourceList {
  #list = byId("sources");
  #rows = new Map();
  #thumbs = Promise.resolve();
  #actions;

  /** `actions`: chosen(source), again(source), removed(source). */
  constructor(actions) {
    this.#actions = actions;
  }

  add(source) {
    const picture = h("canvas", { width: 1, height: 1, "aria-hidden": "true" });
    const state = h("span", { class: "how" });
    const row = h(
      "li",
      {},
      h("button", { class: "source", "aria-pressed": "false", onclick: () => this.#actions.chosen(source) }, picture, h("span", { class: "words" }, h("span", { class: "name" }, source.name), state)),
      h("button", { class: "quiet again", hidden: true, "aria-label": `Try ${source.name} again`, title: "Try again", onclick: () => this.#actions.again(source) }, "↻"),
      h("button", { class: "quiet", "aria-label": `Remove ${source.name}`, title: "Remove", onclick: () => this.#actions.removed(source) }, "✕"),
    );
    this.#rows.set(source, { row, picture, state, pictured: false });
    this.#list.append(row);
    byId("sources-box").hidden = false;
    this.update(source);
  }

  update(source) {
    const entry = this.#rows.get(source);
    if (!entry) return;
    entry.row.className = source.state;
    entry.state.textContent = howItGoes(source);
    entry.row.querySelector(".again").hidden = !["failed", "cancelled"].includes(source.state);
    if (source.image && !entry.pictured) {
      entry.pictured = true;
      // One after the other: twenty at once would take the memory of twenty decoded photographs.
      this.#thumbs = this.#thumbs.then(() => thumb(source.image, entry.picture));
    }
  }

  select(source) {
    for (const [other, { row }] of this.#rows) row.firstChild.setAttribute("aria-pressed", other === source);
  }

  remove(source) {
    this.#rows.get(source)?.row.remove();
    this.#rows.delete(source);
    byId("sources-box").hidden = !this.#rows.size;
  }
}

/** In a few words, what happens to a source or what came of it. */
export function howItGoes(source) {
  if (source.failure) return source.state === "cancelled" ? "stopped" : inWords(source.failure).sentence;
  if (source.state === "waiting") return "waiting";
  if (source.state === "sending") return source.url ? "fetching" : "sending";
  const found = counted(source.regions.size, "region");
  return source.ended ? `${found} · ${milliseconds(source.serverMs)}` : `${found} so far`;
}

async function thumb(image, canvas) {
  // The browser decodes and shrinks beside the page's own work.
  const small = await createImageBitmap(image, { resizeHeight: THUMB_PX, resizeQuality: "low" }).catch(() => null);
  if (!small) return;
  canvas.width = small.width;
  canvas.height = small.height;
  canvas.getContext("2d").drawImage(small, 0, 0);
  small.close();
}
