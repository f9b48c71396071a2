// The regions as a tree that keys move in.

import { byId, h, percent, slices } from "./dom.js";
import { textConfidenceOf, textOf, titleOf } from "./source.js";

export class Tree {
  #panel = byId("panel-regions");
  #list = h("ul", { role: "tree", "aria-label": "Regions", class: "tree" });
  #none = h("p", { class: "hint" }, "Regions appear here as they are found.");
  #rows = new Map();
  #source = null;
  #palette = null;
  #selected = null;
  #chosen;

  constructor(chosen) {
    this.#chosen = chosen;
    this.#panel.append(this.#none, this.#list);
    this.#list.addEventListener("click", (event) => {
      const row = event.target.closest("[role=treeitem]");
      if (!row) return;
      if (event.target.closest(".twisty")) this.#fold(row, row.getAttribute("aria-expanded") === "true");
      else chosen(Number(row.dataset.region));
    });
    this.#list.addEventListener("keydown", (event) => this.#key(event));
  }

  show(source, palette) {
    this.#source = source;
    this.#palette = palette;
    this.#selected = null;
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#list.hidden = true;
    this.#none.hidden = false;
  }

  /** Add a row for a region, behind those of its parent, or write it anew. */
  put(region) {
    const row = this.#rows.get(region.id);
    if (row) {
      row.replaceChildren(...this.#content(region));
      row.classList.toggle("pending", region.pending);
      return;
    }
    const parent = this.#rows.get(region.parent);
    const level = parent ? Number(parent.getAttribute("aria-level")) + 1 : 1;
    const made = h(
      "li",
      {
        role: "treeitem",
        id: `region-${region.id}`,
        class: region.pending ? "pending" : null,
        "data-region": region.id,
        "aria-level": level,
        "aria-selected": "false",
        tabindex: this.#rows.size ? -1 : 0,
      },
      this.#content(region),
    );
    made.style.setProperty("--level", level - 1);
    this.#rows.set(region.id, made);
    if (parent) {
      if (!parent.hasAttribute("aria-expanded")) parent.setAttribute("aria-expanded", "true");
      made.hidden = parent.hidden || parent.getAttribute("aria-expanded") === "false";
      lastBelow(parent).after(made);
    } else {
      this.#list.append(made);
    }
    this.#list.hidden = false;
    this.#none.hidden = true;
  }

  /** Bring the rows into reading order. */
  order() {
    for (const region of this.#source.ordered) slices.add(() => this.#list.append(this.#rows.get(region.id)));
    slices.add(() => { if (this.#selected === null && this.#list.firstChild) this.#rove(this.#list.firstChild); });
  }

  select(region) {
    this.#rows.get(this.#selected)?.setAttribute("aria-selected", "false");
    this.#selected = region?.id ?? null;
    const row = this.#rows.get(this.#selected);
    if (!row) return;
    row.setAttribute("aria-selected", "true");
    for (let above = this.#rows.get(region.parent); above; above = this.#parentOf(above)) this.#fold(above, false);
    this.#rove(row);
    if (!this.#panel.hidden) row.scrollIntoView({ block: "nearest" });
  }

  #content(region) {
    const text = textOf(region);
    const failed = region.readings.find((reading) => reading.error);
    const title = region.pending ? "…" : failed ? "failed" : titleOf(region);
    const confidence = text ? textConfidenceOf(region) : region.confidence;
    return [
      h("span", { class: "twisty", "aria-hidden": "true" }),
      h("span", { class: `swatch c${this.#palette.of(region)}`, "aria-hidden": "true" }),
      h("span", { class: "title" }, title),
      h("span", { class: "kind" }, title === region.className ? "" : region.className),
      h("span", { class: "number" }, percent(confidence)),
    ];
  }

  #key(event) {
    const row = event.target.closest("[role=treeitem]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const shown = [...this.#list.children].filter((other) => !other.hidden);
    const at = shown.indexOf(row);
    const open = row.getAttribute("aria-expanded");
    let to = null;
    if (event.key === "ArrowDown") to = shown[at + 1];
    else if (event.key === "ArrowUp") to = shown[at - 1];
    else if (event.key === "Home") to = shown[0];
    else if (event.key === "End") to = shown.at(-1);
    else if (event.key === "ArrowRight" && open === "false") this.#fold(row, false);
    else if (event.key === "ArrowRight" && open === "true") to = shown[at + 1];
    else if (event.key === "ArrowLeft" && open === "true") this.#fold(row, true);
    else if (event.key === "ArrowLeft") to = this.#parentOf(row);
    else if (event.key === "Enter" || event.key === " ") to = row;
    else return;
    event.preventDefault();
    if (!to) return;
    this.#chosen(Number(to.dataset.region));
    to.focus();
  }

  #parentOf(row) {
    return this.#rows.get(this.#source.regions.get(Number(row.dataset.region)).parent) ?? null;
  }

  #fold(row, folded) {
    row.setAttribute("aria-expanded", !folded);
    const level = Number(row.getAttribute("aria-level"));
    let hiddenBelow = folded ? level : Infinity;
    for (let next = row.nextElementSibling; next; next = next.nextElementSibling) {
      const depth = Number(next.getAttribute("aria-level"));
      if (depth <= level) break;
      if (depth <= hiddenBelow) hiddenBelow = folded ? level : Infinity;
      next.hidden = depth > hiddenBelow;
      if (!next.hidden && next.getAttribute("aria-expanded") === "false") hiddenBelow = depth;
    }
  }

  #rove(row) {
    this.#list.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    row.tabIndex = 0;
  }
}

function lastBelow(row) {
  const level = Number(row.getAttribute("aria-level"));
  let last = row;
  while (Number(last.nextElementSibling?.getAttribute("aria-level")) > level) last = last.nextElementSibling;
  return last;
}
