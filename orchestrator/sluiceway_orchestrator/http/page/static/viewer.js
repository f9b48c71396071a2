// The picture, and over it the outlines of regions and what was read in them.

import { byId, h, slices, svg } from "./dom.js";
import { textOf, titleOf } from "./source.js";

const COLOURS = 6;
const LARGEST = 8;
// As in style.css.
const STACKED = matchMedia("(max-width: 720px)");

/** Give each kind of region (what found it, and its class) a number, in the order in which they come. */
export class Palette {
  #numbers = new Map();

  of(region) {
    const kind = `${region.step} ${region.className}`;
    if (!this.#numbers.has(kind)) this.#numbers.set(kind, this.#numbers.size % COLOURS);
    return this.#numbers.get(kind);
  }
}

export class Viewer {
  #box = byId("viewer");
  #empty = byId("empty");
  #sheet = h("div", { class: "sheet" });
  #picture = h("img", { alt: "", decoding: "async", draggable: "false" });
  #overlay = svg("svg", { "aria-hidden": "true", preserveAspectRatio: "none" });
  #shapes = new Map();
  #source = null;
  #palette = null;
  #page = 0;
  #zoom = 1;
  #size = null; // width and height in pixels of the page
  #url = "";
  #selected = null;

  /**
   * `chosen(id)` is called when a region is clicked; null for the picture beside all regions. `loaded()` is called when
   * the picture is there to cut from.
   */
  constructor(chosen, loaded) {
    this.#sheet.append(this.#picture, this.#overlay);
    this.#box.append(this.#sheet);
    this.#sheet.hidden = true;
    this.#overlay.addEventListener("click", (event) => {
      const shape = event.target.closest("[data-region]");
      chosen(shape ? Number(shape.dataset.region) : null);
    });
    this.#picture.addEventListener("load", () => {
      this.#sheet.classList.remove("paper");
      if (!this.#source.pages.size) this.#sized(this.#picture.naturalWidth, this.#picture.naturalHeight);
      loaded();
    });
    this.#picture.addEventListener("error", () => this.#asPaper());
    // In the next frame, as on a phone the size of the box follows from what is in it.
    new ResizeObserver(() => requestAnimationFrame(() => this.#fit())).observe(this.#box);
    for (const what of ["boxes", "text", "none"]) byId(`show-${what}`).addEventListener("click", () => this.#draw(what));
    byId("larger").addEventListener("click", () => this.#zoomTo(this.#zoom * 1.4));
    byId("smaller").addEventListener("click", () => this.#zoomTo(this.#zoom / 1.4));
    byId("fit").addEventListener("click", () => this.#zoomTo(1));
    byId("page-before").addEventListener("click", () => this.#turnTo(this.#page - 1));
    byId("page-after").addEventListener("click", () => this.#turnTo(this.#page + 1));
    this.#draw("boxes");
  }

  /** The picture as it is shown, to cut from; null where the browser cannot draw it. */
  get picture() {
    return this.#picture.naturalWidth && this.#page === 0 ? this.#picture : null;
  }

  /** Width and height of the page in pixels. */
  get size() {
    return this.#size;
  }

  show(source, palette) {
    this.#source = source;
    this.#palette = palette;
    this.#page = 0;
    this.#zoom = 1;
    this.#size = null;
    this.#selected = null;
    this.#shapes.clear();
    this.#overlay.replaceChildren();
    byId("picture-bar").hidden = this.#empty.hidden = source !== null;
    byId("picture-bar").hidden = source === null;
    this.#sheet.hidden = source === null;
    this.#load(null);
    if (source === null) return;
    this.#sheet.classList.remove("paper");
    this.started();
  }

  /** The source's image or its pages have become known. */
  started() {
    const { image, pages } = this.#source;
    if (image && !this.#url && this.#page === 0) this.#load(image);
    const page = pages.get(this.#page);
    if (page) this.#sized(page.width, page.height);
    const count = Math.max(0, ...pages.keys()) + 1;
    byId("pager").hidden = count < 2;
    byId("page-number").textContent = `${this.#page + 1} of ${count}`;
    byId("page-before").disabled = this.#page === 0;
    byId("page-after").disabled = this.#page + 1 >= count;
  }

  /** Draw a region, or draw it anew. */
  put(region) {
    if (region.page !== this.#page) return;
    const before = this.#shapes.get(region.id);
    const shape = this.#shape(region);
    this.#shapes.set(region.id, shape);
    if (before) before.replaceWith(shape);
    else this.#overlay.append(shape);
    if (region.id === this.#selected) shape.classList.add("selected");
  }

  select(region) {
    this.#shapes.get(this.#selected)?.classList.remove("selected");
    this.#selected = region?.id ?? null;
    if (!region) return;
    if (region.page !== this.#page) this.#turnTo(region.page);
    const shape = this.#shapes.get(region.id);
    if (!shape) return;
    shape.classList.add("selected");
    if (this.#zoom > 1) shape.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #load(image) {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = image ? URL.createObjectURL(image) : "";
    if (image) this.#picture.src = this.#url;
    else this.#picture.removeAttribute("src");
  }

  /** A kind of file that this browser cannot draw: what was read stands on paper where it stood. */
  #asPaper() {
    this.#sheet.classList.add("paper");
    if (this.#source?.pages.size) this.started();
  }

  #turnTo(number) {
    this.#page = number;
    this.#shapes.clear();
    this.#overlay.replaceChildren();
    this.#load(null);
    this.#sheet.classList.toggle("paper", number > 0);
    this.started();
    for (const region of this.#source.regions.values()) slices.add(() => this.put(region));
  }

  #sized(width, height) {
    // To measure the window again after each event would cost a layout of the whole page each time.
    if (this.#size?.width === width && this.#size.height === height) return;
    this.#size = { width, height };
    this.#overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#fit();
  }

  #zoomTo(zoom) {
    this.#zoom = Math.min(LARGEST, Math.max(1, zoom));
    this.#fit();
  }

  #fit() {
    if (!this.#size) return;
    const { width, height } = this.#size;
    const { clientWidth, clientHeight } = this.#box;
    // On a phone the box is as high as what is in it.
    const room = STACKED.matches ? innerHeight * 0.6 : clientHeight;
    const scale = Math.min(clientWidth / width, room / height, 2) * this.#zoom;
    this.#sheet.style.width = `${width * scale}px`;
    this.#sheet.style.height = `${height * scale}px`;
  }

  #draw(what) {
    for (const other of ["boxes", "text", "none"]) byId(`show-${other}`).setAttribute("aria-pressed", other === what);
    this.#sheet.dataset.draw = what;
  }

  #shape(region) {
    const points = region.corners.map((corner) => corner.join(",")).join(" ");
    const text = textOf(region);
    const failed = region.readings.some((reading) => reading.error);
    const classes = ["region", `c${this.#palette.of(region)}`, region.pending && "pending", failed && "failed"];
    return svg(
      "g",
      { class: classes.filter(Boolean).join(" "), "data-region": region.id },
      svg("title", {}, titleOf(region)),
      svg("polygon", { points, "vector-effect": "non-scaling-stroke" }),
      text && written(region, text),
    );
  }
}

/** The text in its place, as wide as it stood there, along the region's own direction. */
function written(region, text) {
  const [[x0, y0], [x1, y1], , [x3, y3]] = region.corners.length === 4 ? region.corners : cornersOf(region.box);
  const width = Math.hypot(x1 - x0, y1 - y0);
  const height = Math.hypot(x3 - x0, y3 - y0);
  const angle = (Math.atan2(y1 - y0, x1 - x0) * 180) / Math.PI;
  const place = `translate(${x0} ${y0}) rotate(${angle})`;
  // A letter is about half as wide as it is high; words without tall letters have low boxes.
  const size = Math.min(height * 1.15, Math.max(height * 0.6, width / (0.54 * text.length)));
  return svg("text", { transform: place, x: 0, y: height * 0.5 + size * 0.36, "font-size": size, textLength: width, lengthAdjust: "spacingAndGlyphs" }, text);
}

function cornersOf([x0, y0, x1, y1]) {
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
}
