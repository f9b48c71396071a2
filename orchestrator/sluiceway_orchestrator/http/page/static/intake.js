// How images come in: chosen, photographed, dropped, pasted, or by URL.

import { byId } from "./dom.js";

/** Calls `files(list)` and `url(text)` with what a person gives. */
export function takeIn({ files, url }) {
  for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", (event) => {
      files([...event.target.files]);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
  byId("address").addEventListener("submit", (event) => {
    event.preventDefault();
    url(byId("url").value.trim());
    byId("url").value = "";
  });
  takePasted(files, url);
  takeDropped(files, url);
}

function takePasted(files, url) {
  document.addEventListener("paste", (event) => {
    const images = [...event.clipboardData.files];
    const text = event.clipboardData.getData("text/plain").trim();
    if (images.length) files(images.map((image) => (image.name === "image.png" ? new File([image], "pasted.png", { type: image.type }) : image)));
    else if (isField(event.target) || !isUrl(text)) return;
    else url(text);
    event.preventDefault();
  });
}

function takeDropped(files, url) {
  const veil = byId("drop");
  // Elements of the page are entered and left as well: what counts is whether the pointer is over any of them.
  let depth = 0;
  const over = (change) => {
    depth = change === 0 ? 0 : depth + change;
    veil.hidden = depth <= 0;
  };
  document.addEventListener("dragenter", (event) => { event.preventDefault(); over(1); });
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(0);
    const dropped = [...event.dataTransfer.files];
    const text = event.dataTransfer.getData("text/uri-list").split("\n")[0].trim();
    if (dropped.length) files(dropped);
    else if (isUrl(text)) url(text);
  });
}

function isField(element) {
  return element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement;
}

function isUrl(text) {
  return /^https?:\/\/\S+$/.test(text);
}
