// The tab Server: what `perceptual status` shows, updated while the tab is visible.

import { status } from "./api.js";

const INTERVAL = 2000; // milliseconds
const MODELS = ["Model", "Version", "Workers ready", "Waiting", "Answered", "Refused or failed", "Median and 95 % by stage"];
const WORKERS = ["Worker", "Model", "State", "Device", "Memory"];

const get = (id) => document.getElementById(id);

/** Shows it, and updates it every few seconds until the signal aborts. */
export async function watch(signal) {
  while (!signal.aborted) {
    if (!document.hidden) await look(signal);
    await new Promise((done) => setTimeout(done, INTERVAL));
  }
}

async function look(signal) {
  try {
    show((await status(signal)).models);
  } catch (error) {
    if (!signal.aborted) get("health").textContent = error.message;
  }
}

function show(models) {
  const down = models.filter((each) => !each.healthy).map((each) => `${each.name} ${each.version}`);
  get("health").textContent = down.length ? `No worker is ready for ${down.join(", ")}.` : "Every model answers.";
  fill(get("models"), MODELS, models.map(modelRow));
  fill(get("workers"), WORKERS, models.flatMap((model) => model.workers.map((each) => workerRow(model, each))));
}

function modelRow(model) {
  const ready = model.workers.filter((each) => each.ready).length;
  const failed = Object.entries(model.replies).filter(([outcome]) => outcome !== "ok");
  const time = (seconds) => (seconds === null ? "over 10,000" : (seconds * 1000).toFixed(0));
  return [
    model.name,
    model.version,
    `${ready} of ${model.wanted}`,
    model.waiting,
    model.replies.ok ?? 0,
    failed.map(([outcome, count]) => `${count} ${outcome}`).join("\n"),
    Object.entries(model.stages).map(([name, times]) => `${name} ${times.map(time).join(" / ")} ms`).join("\n"),
  ];
}

function workerRow(model, worker) {
  const memory = worker.memory === null ? "?" : `${(worker.memory / 2 ** 20).toFixed(0)} MiB`;
  const state = worker.ready ? "ready" : "loading or down";
  return [worker.pid > 0 ? worker.pid : "none", `${model.name} ${model.version}`, state, worker.device, memory];
}

function fill(table, titles, rows) {
  const head = document.createElement("thead");
  head.append(row(titles, "th"));
  const body = document.createElement("tbody");
  body.append(...rows.map((each) => row(each, "td")));
  table.replaceChildren(head, body);
}

function row(texts, kind) {
  const line = document.createElement("tr");
  for (const text of texts) {
    const cell = document.createElement(kind);
    String(text).split("\n").forEach((part, index) => cell.append(...(index ? [document.createElement("br")] : []), part));
    line.append(cell);
  }
  return line;
}
