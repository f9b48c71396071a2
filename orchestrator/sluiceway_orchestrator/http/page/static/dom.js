// Elements without a framework. Nothing here takes HTML as text: what servers and files say is only ever text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** Make an element of HTML; attributes that begin with `on` are listeners. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * Make the children of an element equal to these, keeping those that are of the same kind: what is drawn again and again
 * then stays where a person reads or has selected it. Not for elements with listeners of their own.
 */
export function become(element, children) {
  const wanted = children.flat().filter((child) => child != null && child !== false);
  wanted.forEach((child, at) => {
    const there = element.childNodes[at];
    if (!there) element.append(child);
    else if (there.nodeName !== (child.nodeName ?? "#text")) there.replaceWith(child);
    else if (there.nodeType === Node.TEXT_NODE) {
      const text = child.data ?? child;
      if (there.data !== text) there.data = text;
    } else {
      for (const { name } of [...there.attributes]) if (!child.hasAttribute(name)) there.removeAttribute(name);
      for (const { name, value } of child.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
      become(there, [...child.childNodes]);
    }
  });
  while (element.childNodes.length > wanted.length) element.lastChild.remove();
}

export function byId(id) {
  return document.getElementById(id);
}

/** Make tabs of a tablist: one is selected, arrow keys move between them. Calls `chosen` with the id of the tab. */
export function tabs(list, chosen = () => {}) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const select = (tab) => {
    for (const other of all) {
      const on = other === tab;
      other.setAttribute("aria-selected", on);
      other.tabIndex = on ? 0 : -1;
      byId(other.getAttribute("aria-controls")).hidden = !on;
    }
    chosen(tab.id);
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = all.indexOf(document.activeElement);
    const next = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : step && (at + step + all.length) % all.length;
    if (next === undefined || at < 0) return;
    event.preventDefault();
    all[next].focus();
    select(all[next]);
  });
  return (id) => select(byId(id));
}

const SLICE_MS = 6;

/** Work on the page in slices of a few milliseconds, one a frame, so that keys and clicks never wait long. */
class Slices {
  #work = [];
  #asked = false;

  /** Do this soon, behind what was asked for before. */
  add(work) {
    this.#work.push(work);
    this.#ask();
  }

  /** Forget what has not been done. */
  clear() {
    this.#work = [];
  }

  #ask() {
    if (this.#asked || !this.#work.length) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      const until = performance.now() + SLICE_MS;
      let done = 0;
      while (done < this.#work.length && performance.now() < until) this.#work[done++]();
      this.#work.splice(0, done);
      this.#ask();
    });
  }
}

/** What is drawn of the chosen source. */
export const slices = new Slices();

export function milliseconds(value) {
  if (value >= 9995) return `${(value / 1000).toFixed(1)} s`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function percent(value) {
  return `${Math.round(value * 100)} %`;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let size = Number(count);
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${size < 10 && unit ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
