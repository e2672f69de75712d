// The page: a photo, the look that was chosen for it, and the result.

import { about, predict, Trouble } from "./api.js";
import { curl, DEFAULTS, enlargersOf, extension, looksOf, partners, plan, read, write } from "./looks.js";
import { open } from "./photo.js";
import { watch } from "./server.js";

const STILL = 300; // milliseconds without a change before the whole picture is asked for
const MOST_RESULTS = 12; // that are kept of a visit
const SIZES = ["512", "1024", "2048", ""]; // pixels of the longest side; the last is the photo's own

const get = (id) => document.getElementById(id);
const controls = get("controls");

let offers = { models: [], formats: ["jpeg"], max_bytes: Infinity, token: "", status: false };
let looks = [];
let enlargers = [];
let settings = read(location.search);
let sample = new URLSearchParams(location.search).get("photo");
let photo = null;
let shown = null; // the result that can be downloaded
let results = []; // of this visit, the newest first

// What is being asked for. A change makes the whole picture stale, which is broken off; a preview only if its look is.
let change = 0;
let previewing = null;
let whole = new AbortController();
let thumbs = new AbortController();

const lookNow = () => looks.find((each) => each.id === settings.look) ?? null;
const enlargerNow = () => enlargers.find((each) => each.id === settings.enlarge) ?? null;
const mixNow = () => looks.find((each) => each.id === settings.mix) ?? null;
const title = (look) => look?.title ?? "No style";

// ---------------------------------------------------------------- what there is to choose

async function learn() {
  offers = await about();
  looks = looksOf(offers.models);
  enlargers = enlargersOf(offers.models);
  if (!lookNow() && !(settings.look === "none" && enlargers.length)) settings.look = looks[0]?.id ?? "none";
  if (!enlargerNow()) settings.enlarge = "";
  if (!partners(lookNow(), looks).some((each) => each.id === settings.mix)) settings.mix = "";
  if (!offers.formats.includes(settings.format)) settings.format = DEFAULTS.format;
  get("tabs").hidden = !offers.status;
  showStrip();
  showSettings();
  if (!looks.length && !enlargers.length) say("No model of this package is registered: perceptual models register");
}

function showStrip() {
  const none = enlargers.length ? [{ id: "none", title: "No style", more: "Enlarge only" }] : [];
  const ids = [...none, ...looks].map((each) => each.id).join("\n");
  if (get("strip").dataset.ids === ids) return;
  get("strip").dataset.ids = ids;
  get("strip").replaceChildren(...[...none, ...looks].map(lookChoice));
  if (photo) fillStrip();
}

function lookChoice(look) {
  const input = make("input", { type: "radio", name: "look", value: look.id });
  const thumb = make("span", { className: "thumb" });
  const names = [look.title, look.more].map((text) => make("span", { textContent: text, dir: "auto", title: text }));
  return make("label", { className: "look" }, input, thumb, ...names);
}

/** Thumbnails of this photo in every style, the chosen one first, and one after the other. */
async function fillStrip() {
  thumbs.abort();
  thumbs = new AbortController();
  const { signal } = thumbs;
  for (const each of get("strip").querySelectorAll(".thumb")) each.replaceChildren();
  const label = (look) => get("strip").querySelector(`input[value="${CSS.escape(look?.id ?? "none")}"]`)?.parentElement;
  const put = (look, blob) => label(look)?.querySelector(".thumb").replaceChildren(picture(blob));
  put(null, photo.thumb);
  const waiting = looks.toSorted((one, other) => (other === lookNow()) - (one === lookNow()));
  const work = async () => {
    for (let look; (look = waiting.shift()); ) {
      const steps = plan({ ...DEFAULTS, size: "" }, look, null);
      put(look, (await patiently(() => predict(steps, photo.thumb, signal), signal)).blob);
    }
  };
  // What goes wrong is told with the picture itself; the next success fills what is missing.
  await Promise.all([work(), work()]).catch(() => {});
}

/** An attempt, again a few times where the server says when. */
async function patiently(attempt, signal) {
  for (let tries = 0; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (!error.retry || tries === 3) throw error;
      await sleep(error.retry * 1000, signal);
    }
  }
}

// ---------------------------------------------------------------- settings

function showSettings() {
  const look = lookNow();
  const others = partners(look, looks);
  const factors = enlargers.map((each) => each.scale);
  const named = (each) => (factors.filter((factor) => factor === each.scale).length > 1 ? ` ${each.model}` : "");
  options("mix", [["", "None"], ...others.map((each) => [each.id, each.title])]);
  options("enlarge", [["", "Off"], ...enlargers.map((each) => [each.id, `×${each.scale}${named(each)}`])]);
  options("format", offers.formats.map((each) => [each, { jpeg: "JPEG", png: "PNG", webp: "WebP" }[each] ?? each]));
  options("size", SIZES.map((each) => [each, each ? `${each} px` : photo ? `${photo.width} × ${photo.height}` : "whole"]));
  const other = mixNow();
  const has = { style: look, strokes: look?.strokes, mix: others.length, share: other, enlarge: enlargers.length };
  for (const each of controls.querySelectorAll("[data-needs]")) each.hidden = !has[each.dataset.needs];
  for (const name of Object.keys(DEFAULTS)) {
    const field = controls.elements[name];
    if (field?.type === "checkbox") field.checked = settings[name];
    else if (field) field.value = settings[name];
  }
  const percent = (part) => `${Math.round(part * 100)} %`;
  tell("strength", percent(settings.strength));
  tell("stroke", settings.stroke === 0 ? "fine" : settings.stroke === 1 ? "coarse" : percent(settings.stroke));
  tell("share", `${percent(1 - settings.share)} : ${percent(settings.share)}`);
  [get("one").textContent, get("other").textContent] = [title(look), title(other)];
  const chosen = get("strip").querySelector(`input[value="${CSS.escape(settings.look)}"]`);
  if (chosen && !chosen.checked) {
    chosen.checked = true;
    chosen.parentElement.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  showCurl();
}

function options(name, pairs) {
  const field = controls.elements[name];
  if (field.dataset.pairs === String(pairs)) return;
  field.dataset.pairs = String(pairs);
  field.replaceChildren(...pairs.map(([value, text]) => make("option", { value, textContent: text })));
}

function tell(name, text) {
  controls.elements[name].setAttribute("aria-valuetext", text);
  controls.querySelector(`output[for="${name}"]`).textContent = text;
}

function showCurl() {
  const steps = plan(settings, lookNow(), enlargerNow());
  get("curl").textContent = curl(steps, photo?.name ?? "photo.jpg", resultName(), settings.format, offers.token);
}

const resultName = () => {
  const stem = (photo?.name ?? "photo").replace(/\.\w+$/, "");
  return [stem, lookNow()?.name, enlargerNow() && `x${enlargerNow().scale}`].filter(Boolean).join("-");
};

controls.addEventListener("input", ({ target }) => {
  if (!(target.name in DEFAULTS)) return;
  const value = target.type === "checkbox" ? target.checked : target.type === "range" ? Number(target.value) : target.value;
  set({ [target.name]: value }, ["format", "enlarge", "size"].includes(target.name) ? 0 : 1);
});
controls.addEventListener("submit", (event) => event.preventDefault());
get("strip").addEventListener("change", ({ target }) => set({ look: target.value, mix: "" }, 2));

/** Takes over settings; `effect` says what becomes of the preview: 0 it stays, 1 it is made again, 2 at once. */
function set(changes, effect) {
  Object.assign(settings, changes);
  if (effect === 2) previewing?.abort();
  showSettings();
  note();
  refresh(effect > 0);
}

function note() {
  history.replaceState(null, "", `${write(settings, sample)}${location.hash}`);
}

// ---------------------------------------------------------------- the picture

/** Shows what the settings mean: what was made of them before, or a small preview at once and the whole after it. */
async function refresh(withPreview = true) {
  change += 1;
  whole.abort();
  quiet();
  if (!photo) return;
  const known = results.find((each) => each.photo === photo && same(each.settings, settings));
  if (known) {
    show(known);
    busy(false);
    return;
  }
  offer(null);
  busy(true);
  if (previewing && withPreview) return; // it goes on with what is set by then
  if (withPreview && !(await preview())) return;
  await complete();
}

/** Makes previews until none is out of date; whether that went well. */
async function preview() {
  let made;
  do {
    made = change;
    previewing = new AbortController();
    const look = lookNow();
    try {
      const steps = plan({ ...settings, format: "jpeg", size: "" }, look, null);
      const { blob } = steps.length ? await predict(steps, photo.preview, previewing.signal) : { blob: photo.preview };
      if (look === lookNow()) await display(blob);
    } catch (error) {
      if (error.name !== "AbortError") {
        previewing = null;
        if (made !== change) return preview();
        failed(error);
        return false;
      }
    }
  } while (made !== change);
  previewing = null;
  return true;
}

async function complete() {
  whole = new AbortController();
  const { signal } = whole;
  try {
    await sleep(STILL, signal);
    const steps = plan(settings, lookNow(), enlargerNow());
    const mixed = [lookNow(), mixNow()].filter(Boolean);
    const told = { title: mixed.map(title).join(" + ") || title(null), artist: mixed.map((each) => each.artist).join(", ") };
    const name = `${resultName()}.${extension(settings.format)}`;
    const made = steps.length
      ? await predict(steps, photo.file, signal)
      : { blob: photo.file, stages: {}, time: 0 };
    signal.throwIfAborted();
    keep({ ...made, name, photo, settings: { ...settings }, ...told });
    busy(false);
    fillMissing();
  } catch (error) {
    if (error.name !== "AbortError") failed(error);
  }
}

function fillMissing() {
  if (get("strip").querySelector(".thumb:empty") && thumbs.signal.aborted) fillStrip();
}

async function display(blob) {
  const url = URL.createObjectURL(blob);
  const next = new Image();
  next.src = url;
  await next.decode().catch(() => {});
  const previous = get("after").src;
  get("after").src = url;
  get("frame").dataset.result = "";
  if (previous && !results.some((each) => each.url === previous)) URL.revokeObjectURL(previous);
}

async function show(result) {
  get("after").src = result.url;
  get("after").alt = [`${result.photo.name}: ${result.title}`, result.artist].filter(Boolean).join(", ");
  get("frame").dataset.result = "";
  await get("after").decode().catch(() => {});
  const { naturalWidth: width, naturalHeight: height } = get("after");
  get("caption").replaceChildren(make("b", { textContent: result.title }), result.artist ? ` ${result.artist}` : "");
  get("times").textContent = [`${width} × ${height}`, ...times(result)].join(" · ");
  offer(result);
}

/** How long a result took and, if the server tells, where that went. */
function times({ time, stages }) {
  if (!time) return [];
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(milliseconds < 100 ? 3 : 2)} s`;
  const parts = Object.entries(stages).filter(([name, value]) => name !== "wait" || value > 50);
  return [seconds(time), parts.map(([name, value]) => `${name} ${seconds(value)}`).join(", ")].filter(Boolean);
}

/** Lets a result be downloaded and seen in full size; null while there is none. */
function offer(result) {
  shown = result;
  const link = get("download");
  if (result) Object.assign(link, { href: result.url, download: result.name });
  else link.removeAttribute("href");
  link.toggleAttribute("aria-disabled", false);
  if (!result) link.setAttribute("aria-disabled", "true");
  get("enlarged").disabled = !result;
  for (const each of get("results").querySelectorAll("button"))
    each.ariaCurrent = each.dataset.url === result?.url ? "true" : null;
}

function keep(made) {
  const result = { ...made, url: URL.createObjectURL(made.blob) };
  results = [result, ...results];
  for (const { url } of results.splice(MOST_RESULTS)) URL.revokeObjectURL(url);
  get("results").replaceChildren(...results.map(resultChoice));
  get("visit").hidden = results.length < 2;
  show(result);
}

function resultChoice(result) {
  const button = make("button", { type: "button" }, picture(result.blob, `${result.photo.name}: ${result.title}`));
  button.dataset.url = result.url;
  button.addEventListener("click", () => bringBack(result));
  return make("li", {}, button);
}

function bringBack(result) {
  const other = result.photo !== photo;
  settings = { ...result.settings };
  if (other) setPhoto(result.photo);
  showSettings();
  note();
  refresh();
}

// ---------------------------------------------------------------- photos

async function take(file, name, from = null) {
  say("Opening the photo …");
  try {
    const opened = await open(file, name, looks[0], offers.max_bytes);
    sample = from;
    quiet();
    setPhoto(opened);
    note();
    showSettings();
    await refresh();
  } catch (error) {
    say(error.message);
  }
}

function setPhoto(opened) {
  photo = opened;
  previewing?.abort();
  get("before").src = photo.url;
  get("before").alt = photo.name;
  get("after").removeAttribute("src");
  delete get("frame").dataset.result;
  get("caption").textContent = get("times").textContent = "";
  for (const each of [get("frame"), get("stage")]) each.style.setProperty("--ratio", photo.width / photo.height);
  get("start").hidden = true;
  get("work").hidden = get("another").hidden = false;
  fillStrip();
}

async function takeSample(name) {
  const response = await fetch(`page/samples/${encodeURIComponent(name)}.jpg`).catch(() => null);
  if (response?.ok) await take(await response.blob(), `${name}.jpg`, name);
}

const takeFirst = (files) => files.length && take(files[0], files[0].name || "photo");

for (const [button, input] of [["choose", "file"], ["another", "file"], ["take", "camera"]])
  get(button).addEventListener("click", () => get(input).click());
for (const input of [get("file"), get("camera")])
  input.addEventListener("change", () => {
    takeFirst(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
get("samples").addEventListener("click", (event) => {
  const button = event.target.closest("[data-sample]");
  if (button) takeSample(button.dataset.sample);
});
addEventListener("paste", (event) => takeFirst(event.clipboardData.files));

let depth = 0; // of elements that a dragged file has entered
const dragging = (step) => document.body.toggleAttribute("data-dragging", (depth = Math.max(0, depth + step)) > 0);
addEventListener("dragenter", (event) => event.dataTransfer.types.includes("Files") && dragging(1));
addEventListener("dragleave", (event) => event.dataTransfer.types.includes("Files") && dragging(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(-depth);
  takeFirst(event.dataTransfer.files);
});

// ---------------------------------------------------------------- comparing, full size, copying

get("compare").addEventListener("input", compare);
function compare() {
  const part = Number(get("compare").value);
  get("frame").style.setProperty("--split", `${part}%`);
  get("frame").style.setProperty("--part", part);
  get("compare").setAttribute("aria-valuetext", `${part} % photo, ${100 - part} % result`);
}

get("enlarged").addEventListener("click", () => {
  const pixels = get("pixels");
  pixels.src = shown.url;
  pixels.alt = get("after").alt;
  pixels.decode().catch(() => {}).then(() => (pixels.width = pixels.naturalWidth / devicePixelRatio));
  get("full").showModal();
  get("scroll").focus();
});

get("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(get("curl").textContent);
    say("Copied.");
  } catch {
    getSelection().selectAllChildren(get("curl"));
    say("Selected: press Ctrl+C.");
  }
});

// ---------------------------------------------------------------- what is said

let countdown = null;

function say(text, again = null) {
  clearInterval(countdown);
  get("message").textContent = text;
  get("notice").toggleAttribute("data-shown", true);
  get("retry").hidden = !again;
  get("retry").onclick = again;
  if (!again) countdown = setTimeout(quiet, 8000);
}

function quiet() {
  clearTimeout(countdown);
  get("notice").toggleAttribute("data-shown", false);
  get("message").textContent = "";
  get("retry").hidden = true;
}

/** Tells what went wrong, and tries again where that may help. */
function failed(error) {
  if (!(error instanceof Trouble)) throw error;
  busy(false);
  thumbs.abort();
  if (!error.retry) {
    say(error.message);
    if (error.status === 404) learn().catch(() => {}); // the model has gone
    return;
  }
  say(`${error.message} Trying again in ${error.retry} s.`, again);
  countdown = setTimeout(again, error.retry * 1000);
}

function again() {
  quiet();
  learn().then(() => refresh(), failed);
}

function busy(is) {
  get("frame").toggleAttribute("data-busy", is);
  get("stage").setAttribute("aria-busy", is);
}

// ---------------------------------------------------------------- odds and ends

function make(tag, properties, ...children) {
  const { dir, ...others } = properties;
  const element = Object.assign(document.createElement(tag), others);
  if (dir) element.dir = dir;
  element.append(...children);
  return element;
}

function picture(blob, alt = "") {
  const image = make("img", { alt });
  image.src = URL.createObjectURL(blob);
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  return image;
}

const same = (one, other) => Object.keys(DEFAULTS).every((name) => one[name] === other[name]);

function sleep(milliseconds, signal) {
  return new Promise((done, broken) => {
    signal.throwIfAborted();
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), broken(signal.reason)), { once: true });
  });
}

let watching = new AbortController();

function showTab() {
  const server = location.hash === "#server" && offers.status;
  get("server").hidden = !server;
  get("picture").hidden = server;
  for (const each of get("tabs").children) each.ariaCurrent = (each.hash === "#server") === server ? "page" : null;
  watching.abort();
  watching = new AbortController();
  if (server) watch(watching.signal);
}

addEventListener("hashchange", showTab);
document.addEventListener("visibilitychange", () => document.hidden || learn().catch(() => {}));
addEventListener("focus", () => learn().catch(() => {}));

async function begin() {
  compare();
  try {
    await learn();
  } catch (error) {
    say(error.message, begin);
    countdown = setTimeout(begin, (error.retry || 5) * 1000);
    return;
  }
  quiet();
  showTab();
  get("start").hidden = Boolean(sample);
  if (sample) await takeSample(sample);
  if (!photo) get("start").hidden = false;
}

begin();
