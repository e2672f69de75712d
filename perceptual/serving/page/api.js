// The server's APIs. Addresses are relative, so that the page works wherever a proxy puts it.

const AWAY = 3; // seconds until a server that does not answer is asked again

/** An error message for the user, in a sentence. */
export class Trouble extends Error {
  /** `retry`: seconds until a new attempt; 0 if one would not help. */
  constructor(message, retry = 0, status = 0) {
    super(message);
    this.retry = retry;
    this.status = status;
  }

  /** Whether the fault may be the model's, so that another one may answer. */
  get ofModel() {
    return [404, 500, 503, 507].includes(this.status);
  }
}

export const about = () => ask("page/about").then((response) => response.json());
export const status = (signal) => ask("page/status", { signal }).then((response) => response.json());
export const sample = (name, signal) => ask(`page/samples/${encodeURIComponent(name)}.jpg`, { signal }).then(read);

/**
 * Runs the steps of a plan, each on the result of the previous one.
 * Returns the picture, the total time, and the time that the server reports for each stage, in milliseconds.
 */
export async function predict(steps, photo, signal) {
  const begin = performance.now();
  const stages = {};
  let blob = photo;
  for (const { model, fields } of steps) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    body.append("data", blob, "photo");
    const response = await ask(`predictions/${model}`, { method: "POST", body, signal });
    for (const [, stage, time] of (response.headers.get("Server-Timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g))
      stages[stage] = (stages[stage] ?? 0) + Number(time);
    blob = await read(response);
  }
  return { blob, stages, time: performance.now() - begin };
}

/** A successful reply. Throws a Trouble for others, and an AbortError if the signal aborts. */
async function ask(path, options) {
  const response = await reach(() => fetch(path, { credentials: "same-origin", ...options }));
  if (response.ok) return response;
  throw new Trouble(await sentence(response), Number(response.headers.get("Retry-After") ?? 0), response.status);
}

const read = (response) => reach(() => response.blob());

async function reach(attempt) {
  try {
    return await attempt();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The server does not answer.", AWAY);
  }
}

/** The server's error message, as a sentence. */
async function sentence(response) {
  if (response.status === 401)
    return "This browser is not let in any more: run “perceptual token page”, and open the address that it prints.";
  const said = await response.json().catch(() => ({}));
  const detail = said.detail ?? said.message ?? `The server answers ${response.status} ${response.statusText}`;
  return detail.charAt(0).toUpperCase() + detail.slice(1) + (/[.!?]$/.test(detail) ? "" : ".");
}
