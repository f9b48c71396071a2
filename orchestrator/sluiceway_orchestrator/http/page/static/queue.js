// Runs sources, a few at a time, and tries again where the server said when to come back.

import { Failure } from "./server.js";

// Browsers open six connections to a server; the rest is for the cluster's view and for whoever looks at a page beside.
const AT_ONCE = 3;
const MOST_TRIES = 6;
const PAUSE_MS = 500;
// Events that came together are taken for so long before keys and clicks have their turn.
const TURN_MS = 8;

export class Queue {
  #server;
  #changed;
  #waiting = [];
  #running = new Map();

  /** `changed(source, regions)` is called for each event, with the regions that it changed. */
  constructor(server, changed) {
    this.#server = server;
    this.#changed = changed;
  }

  /** Run a source. `request(source)` makes [body, query], or a promise of it. */
  add(source, request) {
    this.#waiting.push([source, request]);
    this.#next();
  }

  /** End a source, whether it runs or waits. */
  drop(source) {
    this.#waiting = this.#waiting.filter(([other]) => other !== source);
    this.#running.get(source)?.abort();
  }

  #next() {
    while (this.#running.size < AT_ONCE && this.#waiting.length) {
      const [source, request] = this.#waiting.shift();
      const control = new AbortController();
      this.#running.set(source, control);
      this.#run(source, request, control.signal).finally(() => {
        this.#running.delete(source);
        this.#next();
      });
    }
  }

  async #run(source, request, signal) {
    for (let tries = 1; ; tries += 1) {
      try {
        await this.#once(source, request, signal);
        return;
      } catch (error) {
        const again = tries < MOST_TRIES && error.retryAfterMs > 0 && !source.regions.size;
        if (!again) {
          if (!(error instanceof Failure) && error.name !== "AbortError") console.error(error);
          source.fail(error);
          this.#changed(source, []);
          return;
        }
        source.reset();
        this.#changed(source, []);
        await pause(Math.max(error.retryAfterMs, PAUSE_MS * tries), signal);
      }
    }
  }

  async #once(source, request, signal) {
    const [body, query] = await request(source);
    source.begin();
    this.#changed(source, []);
    let turn = performance.now();
    for await (const event of this.#server.process(body, query, signal)) {
      if (performance.now() - turn > TURN_MS) {
        await othersTurn();
        turn = performance.now();
      }
      if (event.job_done) continue;
      const regions = source.apply(event);
      // What may succeed later is not told as a failure yet.
      if (!source.failure?.retryAfterMs) this.#changed(source, regions);
    }
    if (source.failure?.retryAfterMs) throw source.failure;
  }
}

/** Let everything else that waits be done. A message, as timers are slow in a window that nobody sees. */
function othersTurn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => { port1.close(); resolve(); };
    port2.postMessage(0);
  });
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
