// Reads the text in images through a Sluiceway server and prints each event as it comes.

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { parseArgs } from "node:util";

import {
  type ChannelCredentials,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";

import { ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { type Geometry } from "./gen/sluiceway/common/v1/geometry.js";
import { Priority } from "./gen/sluiceway/common/v1/model.js";
import {
  PipelineServiceClient,
  ProcessRequest,
  type ProcessResponse,
  type Source,
  Subject,
} from "./gen/sluiceway/pipeline/v1/pipeline.js";

// gRPC's own limit is 4 MB; a page with many regions, or an image sent back, is larger.
const MAX_MESSAGE_BYTES = 64 * 2 ** 20;

const USAGE = `usage: sluiceway-client [options] IMAGE...
  --address HOST:PORT  the server (localhost:50051)
  --ca FILE            use TLS and trust these certificates; the token in SLUICEWAY_TOKEN is sent
  --cert FILE --key FILE  the client's own certificate (mutual TLS)
  --timeout SECONDS    deadline of the call, or of each job with --bulk
  --cancel-after N     cancel the call after N events
  --bulk N             one job an image over one stream, at most N jobs unfinished`;

interface Options {
  address: string;
  ca?: string;
  cert?: string;
  key?: string;
  timeout?: string;
  "cancel-after"?: string;
  bulk?: string;
}

/** A stream of events that can be cancelled. */
interface Call {
  events: AsyncIterable<ProcessResponse>;
  cancel(): void;
}

async function run(options: Options, paths: string[]): Promise<boolean> {
  const client = new PipelineServiceClient(options.address, await channelCredentials(options), {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
  });
  const timeoutMs = options.timeout ? Number(options.timeout) * 1000 : undefined;
  try {
    const call = options.bulk
      ? processStream(client, paths, Number(options.bulk), timeoutMs)
      : await process_(client, paths, timeoutMs);
    let failed = 0;
    let count = 0;
    for await (const event of call.events) {
      failed += printEvent(event);
      // Ends the call on the server, too.
      if (++count === Number(options["cancel-after"])) call.cancel();
    }
    return failed === 0;
  } finally {
    client.close();
  }
}

async function channelCredentials(options: Options): Promise<ChannelCredentials> {
  const token = process.env["SLUICEWAY_TOKEN"];
  if (!options.ca) {
    if (token) throw new Error("a token is only sent over TLS: give --ca");
    return credentials.createInsecure();
  }
  const [ca, key, cert] = await Promise.all(
    [options.ca, options.key, options.cert].map((path) => (path ? readFile(path) : null)),
  );
  const tls = credentials.createSsl(ca, key, cert);
  if (!token) return tls;
  const bearer = credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${token}`);
    done(null, metadata);
  });
  return credentials.combineChannelCredentials(tls, bearer);
}

async function readSource(path: string): Promise<Partial<Source>> {
  return { sourceId: basename(path), content: { $case: "image", value: await readFile(path) } };
}

/** Sends all images as one job. */
async function process_(
  client: PipelineServiceClient,
  paths: string[],
  timeoutMs: number | undefined,
): Promise<Call> {
  const sources = await Promise.all(paths.map(readSource));
  const request = ProcessRequest.fromPartial({ sources });
  const metadata = new Metadata();
  // The server makes room for so much, and reads at once.
  metadata.set("sluiceway-request-bytes", String(ProcessRequest.encode(request).finish().length));
  metadata.set("sluiceway-priority", "normal");
  const stream: ClientReadableStream<ProcessResponse> = client.process(request, metadata, {
    deadline: timeoutMs && Date.now() + timeoutMs,
  });
  return { events: stream, cancel: () => stream.cancel() };
}

/**
 * Sends a job for each image over one stream. Two things bound what is in flight: `window` jobs that are not finished,
 * and `drain`, which is awaited while the server does not read. An image is read when its turn comes.
 */
function processStream(
  client: PipelineServiceClient,
  paths: string[],
  window: number,
  timeoutMs: number | undefined,
): Call {
  const metadata = new Metadata();
  // How large the largest job is, is not known yet: files are read one by one.
  metadata.set("sluiceway-priority", "bulk");
  const stream = client.processStream(metadata);
  let unfinished = 0;
  let ended = false;
  let wake = (): void => {};

  async function send(): Promise<void> {
    for (const [index, path] of paths.entries()) {
      while (unfinished >= window && !ended) await new Promise<void>((resolve) => (wake = resolve));
      if (ended) return;
      unfinished++;
      const job = ProcessRequest.fromPartial({
        jobId: `job-${index}`,
        sources: [await readSource(path)],
        options: { priority: Priority.PRIORITY_BULK },
        // The deadline of the stream would end it with all its jobs.
        timeout: timeoutMs && { seconds: Math.floor(timeoutMs / 1000), nanos: Math.round((timeoutMs % 1000) * 1e6) },
      });
      if (!stream.write({ action: { $case: "job", value: job } })) await once(stream, "drain");
    }
    stream.end();
  }

  async function* receive(): AsyncGenerator<ProcessResponse> {
    // A file that cannot be read ends the stream; what the server says of it matters less.
    const sending = send().catch((error: unknown) => void stream.destroy(error as Error));
    try {
      for await (const { event } of stream) {
        if (!event) continue;
        if (event.event?.$case === "jobDone" || event.event?.$case === "jobRefused") {
          unfinished--;
          wake();
        }
        yield event;
      }
    } finally {
      ended = true;
      wake();
      await sending;
    }
  }

  return { events: receive(), cancel: () => stream.cancel() };
}

/** Writes a line for each thing that an event tells. Returns how many sources or jobs it says have failed. */
function printEvent({ jobId, sourceId, event }: ProcessResponse): number {
  switch (event?.$case) {
    case "sourceReady":
      line("source_ready", sourceId, event.value.sizeBytes);
      return 0;
    case "regions": {
      const { page, regions } = event.value;
      line("regions", sourceId, page?.width, page?.height, regions.length);
      for (const { id, geometry, className, confidence, keypoints } of regions) {
        const numbers = join(numbersOf(geometry));
        const kind = geometry?.shape?.$case === "box" ? "box" : "outline";
        // A newer server may know shapes that this program does not.
        if (numbers) line(kind, sourceId, id, numbers, className, confidence.toFixed(4));
        // Where each point is and how sure the model is that it can be seen.
        const points = keypoints.flatMap(({ x, y, confidence }) => [x, y, confidence]);
        if (points.length > 0) line("keypoints", sourceId, id, join(points));
      }
      return 0;
    }
    case "values": {
      // What is about a page or the source names no region.
      const { subject, page, values } = event.value;
      const ofPage = subject === Subject.SUBJECT_PAGE;
      if (!ofPage && ![Subject.SUBJECT_UNSPECIFIED, Subject.SUBJECT_REGION].includes(subject)) return 0;
      for (const { regionId, result } of values) {
        if (result?.$case === "text" && !ofPage) {
          line("text", sourceId, regionId, result.value.confidence.toFixed(4), result.value.text);
        }
        const best = result?.$case === "classification" ? result.value.labels[0] : undefined;
        if (best) {
          const [kind, about] = ofPage ? ["page_class", page] : ["class", regionId];
          line(kind, sourceId, about, best.confidence.toFixed(4), best.className);
        }
      }
      return 0;
    }
    case "done":
      line("done", sourceId, event.value.readingOrder.join(" "));
      return 0;
    case "failed":
      line("failed", sourceId, event.value.error?.reason, event.value.error?.message);
      return 1;
    case "jobDone":
      line("job_done", jobId, event.value.succeeded, event.value.failed);
      return 0;
    case "jobRefused": {
      const { error } = event.value;
      line("refused", jobId, error?.reason, error?.retryAfterMs, error?.message);
      return 1;
    }
    default: // an event that this program is too old for
      return 0;
  }
}

function join(numbers: number[]): string {
  return numbers.map((number) => number.toFixed(2)).join(" ");
}

/** The edges of an upright box, or the corners of another shape; nothing of one that this program is too old for. */
function numbersOf(geometry: Geometry | undefined): number[] {
  switch (geometry?.shape?.$case) {
    case "box": {
      const { x0, y0, x1, y1 } = geometry.shape.value;
      return [x0, y0, x1, y1];
    }
    case "rotatedBox": {
      const { center, width, height, angleDegrees } = geometry.shape.value;
      const angle = (angleDegrees * Math.PI) / 180;
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      // Clockwise from the one that is top left without the turn; y grows downwards.
      const sides = [[-1, -1], [1, -1], [1, 1], [-1, 1]] as const;
      return sides.flatMap(([right, down]) => {
        const [x, y] = [(right * width) / 2, (down * height) / 2];
        return [(center?.x ?? 0) + x * cos - y * sin, (center?.y ?? 0) + x * sin + y * cos];
      });
    }
    case "polygon":
      return geometry.shape.value.points.flatMap(({ x, y }) => [x, y]);
    default:
      return [];
  }
}

/** Writes what the server said: the code, Sluiceway's stable reason, and when to try again. */
function printError(error: ServiceError): void {
  let info: ErrorInfo | undefined;
  let retryMs = 0;
  const [packed] = error.metadata.get("grpc-status-details-bin");
  for (const { typeUrl, value } of packed instanceof Buffer ? Status.decode(packed).details : []) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) info = ErrorInfo.decode(value);
    if (typeUrl.endsWith("/google.rpc.RetryInfo")) {
      const delay = RetryInfo.decode(value).retryDelay;
      retryMs = (delay?.seconds ?? 0) * 1000 + (delay?.nanos ?? 0) / 1e6;
    }
  }
  line("error", status[error.code], info?.reason ?? "-", retryMs, error.details);
  for (const [key, value] of Object.entries(info?.metadata ?? {})) line("error_metadata", key, value);
}

function line(...fields: unknown[]): void {
  console.log(fields.join("\t"));
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

const text = { type: "string" } as const;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    address: { ...text, default: "localhost:50051" },
    ca: text,
    cert: text,
    key: text,
    timeout: text,
    "cancel-after": text,
    bulk: text,
  },
});
if (positionals.length === 0) {
  console.error(USAGE);
  process.exitCode = 2;
} else {
  try {
    process.exitCode = (await run(values, positionals)) ? 0 : 1;
  } catch (error) {
    if (isServiceError(error)) printError(error);
    else console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
