// One region: what it looks like, what was read in it, and how sure the models are.

import { byId, h, percent } from "./dom.js";
import { textOf } from "./source.js";

const CROP_HEIGHT = 120;
const CROP_WIDTH = 640;
const LARGEST_SCALE = 4;

export class Detail {
  #card = byId("detail");
  #closed;

  /** `closed()` is called when the card is closed. */
  constructor(closed) {
    this.#closed = closed;
  }

  /** Show a region, cut from the picture where there is one. */
  show(region, viewer) {
    this.#card.hidden = !region;
    if (!region) return;
    const [x0, y0, x1, y1] = region.box.map((value) => Math.round(value * 10) / 10);
    this.#card.replaceChildren(
      h(
        "div",
        { class: "head" },
        h("h2", {}, textOf(region) || region.className),
        h("button", { class: "quiet", "aria-label": "Close", onclick: this.#closed }, "✕"),
      ),
      viewer.picture && crop(region, viewer.picture, viewer.size),
      h(
        "dl",
        {},
        fact("Class", region.className),
        fact("Found by", region.step),
        fact("Sure of the region", meter(region.confidence)),
        fact("Place", `${x0}, ${y0} to ${x1}, ${y1} px`),
        region.parent !== null && fact("Inside", `region ${region.parent}`),
        ...region.readings.map(said),
        region.pending && fact("Text", "not read yet"),
      ),
    );
  }
}

function fact(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

function meter(value) {
  const bar = h("span", { class: "meter", "aria-hidden": "true" }, h("i"));
  bar.firstChild.style.width = `${value * 100}%`;
  return h("span", { class: "sure" }, bar, percent(value));
}

function said(reading) {
  const { step, model, text, characters, labels, embedding, data, error } = reading;
  const by = model ? `${step} (${model})` : step;
  if (error) return fact(by, h("span", { class: "wrong" }, error.message || error.reason));
  if (labels.length) return fact(by, labels.map((label) => h("span", { class: "label" }, label.class_name, " ", percent(label.confidence))));
  if (embedding.length) return fact(by, `a vector of ${embedding.length} numbers`);
  if (data !== null) return fact(by, h("code", {}, JSON.stringify(data)));
  return [
    fact(`Read by ${by}`, text ? meter(reading.confidence) : "no text"),
    characters.length > 0 && fact("Each character", h("span", { class: "characters" }, characters.map(character))),
  ];
}

function character({ text, confidence }) {
  // Three steps are told by colour and by a line, so that colour is not all.
  const level = confidence >= 0.9 ? "high" : confidence >= 0.6 ? "middle" : "low";
  const shown = text === " " ? "␣" : text;
  return h("span", { class: level, title: percent(confidence) }, shown, h("span", { class: "unseen" }, ` ${percent(confidence)}, `));
}

function crop(region, picture, size) {
  const [x0, y0, x1, y1] = region.box;
  // A little of what is around shows whether the outline is right.
  const margin = Math.max(2, (y1 - y0) * 0.15);
  const left = Math.max(0, x0 - margin);
  const top = Math.max(0, y0 - margin);
  const width = Math.min(size.width, x1 + margin) - left;
  const height = Math.min(size.height, y1 + margin) - top;
  const scale = Math.min(LARGEST_SCALE, CROP_HEIGHT / height, CROP_WIDTH / width);
  const canvas = h("canvas", { role: "img", "aria-label": "The region, cut out", class: "crop" });
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  // The picture may have been drawn from a file of another size than the page is told to have.
  const [fx, fy] = [picture.naturalWidth / size.width, picture.naturalHeight / size.height];
  context.drawImage(picture, left * fx, top * fy, width * fx, height * fy, 0, 0, canvas.width, canvas.height);
  context.strokeStyle = getComputedStyle(document.body).getPropertyValue("--accent");
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [x, y] of region.corners) context.lineTo((x - left) * scale, (y - top) * scale);
  context.closePath();
  context.stroke();
  return canvas;
}
