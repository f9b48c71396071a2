// The port that this page came from: what it offers, how its cluster is, and jobs with their events.

/** A failure in the words of the server (RFC 9457), or of the network. */
export class Failure extends Error {
  constructor({ detail = "", reason = "", code = "", status = 0, request_id = "", retry_after_ms = 0 }) {
    super(detail);
    this.reason = reason;
    this.code = code;
    this.status = status;
    this.requestId = request_id;
    this.retryAfterMs = retry_after_ms;
  }
}

export class Server {
  #token = "";

  useToken(token) {
    this.#token = token;
  }

  /** What can be asked of this server, and how its stages are. Throws Failure. */
  async describe(signal) {
    const response = await this.#fetch("v1/describe", { signal });
    return response.json();
  }

  /** How the cluster is, again and again, until the signal says stop or the server drains. Throws Failure. */
  async *watch(signal) {
    const response = await this.#fetch("v1/watch", { signal });
    for await (const line of lines(response.body)) yield JSON.parse(line);
  }

  /**
   * Run a job; yields its events as they come. Throws Failure, also where the job breaks off.
   * `query` are parameters of the URL, `body` is a Blob (the image), or an object (a ProcessRequest).
   */
  async *process(body, query, signal) {
    const image = body instanceof Blob;
    const response = await this.#fetch(`v1/process?${new URLSearchParams(query)}`, {
      method: "POST",
      body: image ? body : JSON.stringify(body),
      headers: {
        "Content-Type": image ? "application/octet-stream" : "application/json",
        Accept: "application/x-ndjson",
      },
      signal,
    });
    let last = null;
    for await (const line of lines(response.body)) {
      last = JSON.parse(line);
      if (last.problem) throw new Failure(last.problem);
      yield last;
    }
    if (!last?.job_done) throw new Failure({ reason: "BROKEN_OFF" });
  }

  async #fetch(path, options) {
    const headers = { ...options.headers };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    let response;
    try {
      // Relative, so that the page also works below a path of a proxy.
      response = await fetch(new URL(path, document.baseURI), { ...options, headers, credentials: "same-origin" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure({ reason: "NOT_REACHED" });
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new Failure({ ...problem, status: response.status });
  }
}

/** The lines of a stream of bytes, each the moment it is complete. */
async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  // A line with an image in it comes in hundreds of pieces: they are joined once.
  let pieces = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = value.split("\n");
      while (parts.length > 1) {
        const line = pieces.join("") + parts.shift();
        pieces = [];
        if (line) yield line;
      }
      pieces.push(parts[0]);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Failure) throw error;
    throw new Failure({ reason: "BROKEN_OFF" });
  } finally {
    reader.cancel().catch(() => {});
  }
  const rest = pieces.join("");
  if (rest) yield rest;
}

// What a person should know, and can do. What the server said comes behind it.
const WORDS = {
  INVALID_IMAGE: "This file cannot be read as an image.",
  IMAGE_TOO_LARGE: "This image is larger than the server takes.",
  INVALID_OPTION: "The server does not take these options.",
  UNKNOWN_PIPELINE: "The server has no such pipeline any more. Load this page again.",
  QUEUE_FULL: "The server has more work than it can take. Try again in a moment.",
  UNAVAILABLE: "The server cannot do this now: it is starting, stopping, or a stage is missing. Try again in a moment.",
  DEADLINE_EXCEEDED: "The time ran out. The server may have too much work, or the image may be too large for it.",
  UPSTREAM_FAILED: "The address did not answer as it should.",
  UPSTREAM_REFUSED: "The address said no.",
  URL_NOT_ALLOWED: "This server may not fetch from that address.",
  UNAUTHENTICATED: "The server wants a valid token.",
  MODEL_FAILED: "The model failed on this image.",
  QUARANTINED: "This image ended a worker of the server and is not tried again.",
  INTERNAL: "The server failed. Its log has more.",
  NOT_READ: "This file cannot be read on this machine. Is it a folder, or was it changed or taken away?",
  NOT_REACHED: "The server cannot be reached. Is it running, and is this machine connected?",
  BROKEN_OFF: "The connection broke before everything was read. Try again.",
};

/** A failure in words: a sentence, and what the server said of it. */
export function inWords(failure) {
  const { reason, message: detail, requestId } = failure;
  const sentence = WORDS[reason] ?? (reason ? "The server refused this." : "Something went wrong.");
  return { sentence, detail, reason, requestId };
}
