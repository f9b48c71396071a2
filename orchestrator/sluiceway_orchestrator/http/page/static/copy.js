// What is copied: text, JSON as `sluiceway run --json` writes it, and Markdown.

import { textConfidenceOf, textOf } from "./source.js";

export function asText(source) {
  return source.paragraphs
    .map((lines) => lines.map((line) => line.map(textOf).join(" ")).join("\n"))
    .join("\n\n");
}

export function asJson(source) {
  return JSON.stringify(plain(source), null, 2);
}

export function asMarkdown(source) {
  const head = `## ${escaped(source.name)}\n\n`;
  if (source.failure) return `${head}${escaped(source.failure.message || source.failure.reason)}\n`;
  const notices = source.notices.map((notice) => `> ${escaped(notice.message)}\n`).join("");
  return head + (isTree(source) ? list(source) : prose(source)) + (notices && `\n${notices}`);
}

/** Put text on the clipboard, also where the browser keeps its newer interface for pages that came over TLS. */
export async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "unseen";
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

function lineOf(source, ids) {
  const regions = ids.map((id) => source.regions.get(id));
  return regions.filter((region) => region && textOf(region)).map(textOf).join(" ");
}

function isTree(source) {
  const regions = [...source.regions.values()];
  const classes = new Set(regions.map((region) => region.className));
  return regions.some((region) => region.parent !== null) || classes.size > 1 || !regions.some(textOf);
}

function prose(source) {
  // Two spaces at its end keep a line a line.
  const paragraph = (lines) => lines.map((line) => escaped(line.map(textOf).join(" "))).join("  \n");
  return `${source.paragraphs.map(paragraph).join("\n\n")}\n`;
}

function list(source) {
  const depths = new Map();
  const rows = source.ordered.map((region) => {
    const depth = region.parent === null ? 0 : (depths.get(region.parent) ?? -1) + 1;
    depths.set(region.id, depth);
    const labels = region.readings.flatMap((reading) => reading.labels).map((label) => escaped(label.class_name));
    const said = [textOf(region) === null ? "" : escaped(textOf(region)), ...labels].filter((part) => part).join(", ");
    return `${"  ".repeat(depth)}- **${escaped(region.className)}** (${region.confidence.toFixed(2)})${said && `: ${said}`}\n`;
  });
  return rows.join("");
}

function escaped(text) {
  return text
    .replace(/[\\`*_[\]<>#|~&]/g, "\\$&")
    .replace(/^(\s*)([-+])(?=\s)/, "$1\\$2")
    .replace(/^(\s*\d+)([.)])(?=\s)/, "$1\\$2");
}

const rounded = (value, digits) => Number(value.toFixed(digits));

function plain(source) {
  if (source.failure) {
    const { code, reason, message } = source.failure;
    return { source: source.name, status: "failed", error: { code, reason, message } };
  }
  const pages = [...source.pages.values()].sort((a, b) => a.index - b.index);
  const many = pages.length > 1;
  return {
    source: source.name,
    status: "ok",
    width: pages[0]?.width ?? 0,
    height: pages[0]?.height ?? 0,
    regions: source.ordered.map((region) => ({ ...plainRegion(region), ...(many && { page: region.page }) })),
    ...whereAny("values", source.values),
    ...whereAny("value_errors", source.valueErrors),
    ...(many && { pages: pages.map(({ index, width, height, rotation_degrees: rotation }) => ({ index, width, height, rotation })) }),
    ...whereAny("lines", source.lines.map(({ region_ids: regions, page }) => ({ regions, text: lineOf(source, regions), page }))),
    ...whereAny("blocks", source.blocks),
    ...whereAny("notices", source.notices),
    models: source.models,
    timings_ms: timings(source),
  };
}

function plainRegion(region) {
  const labels = region.readings.flatMap((reading) => reading.labels);
  const embedding = region.readings.find((reading) => reading.embedding.length)?.embedding ?? [];
  const values = region.readings.filter((reading) => reading.data !== null).map(({ step, data }) => [step, data]);
  const error = region.readings.find((reading) => reading.error)?.error;
  const confidence = textConfidenceOf(region);
  return {
    id: region.id,
    parent: region.parent,
    step: region.step,
    box: region.box.map((value) => rounded(value, 2)),
    ...(!region.upright && { outline: region.corners.map((corner) => corner.map((value) => rounded(value, 2))) }),
    class: region.className,
    confidence: rounded(region.confidence, 4),
    text: textOf(region),
    text_confidence: confidence === null ? null : rounded(confidence, 4),
    ...whereAny("labels", labels.map((label) => ({ class: label.class_name, confidence: rounded(label.confidence, 4) }))),
    ...whereAny("embedding", embedding),
    ...whereAny("values", Object.fromEntries(values)),
    ...(error && { error }),
  };
}

function timings(source) {
  const plainSteps = source.steps.flatMap(({ step, timings: time = {} }) => [
    [`${step}_queue`, time.queue_ms ?? 0],
    [`${step}_compute`, time.compute_ms ?? 0],
    [step, time.total_ms ?? 0],
  ]);
  const all = [["fetch", source.fetchMs], ...plainSteps, ["total", source.serverMs ?? 0]];
  return Object.fromEntries(all.map(([name, value]) => [name, rounded(value, 3)]));
}

function whereAny(name, value) {
  return Object.keys(value).length ? { [name]: value } : {};
}
