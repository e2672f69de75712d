// The page: a photo, the chosen look, and the result.

import { about, predict, sample as sampleFile, Trouble } from "./api.js";
import { get, make, picture, sleep } from "./dom.js";
import { curl, DEFAULTS, enlargersOf, extension, looksOf, NONE, paintsSmaller, partners, plan, read, SIZES, write } from "./looks.js";
import { quiet, say, sayError } from "./notice.js";
import { open } from "./photo.js";
import { watch } from "./server.js";
import * as strip from "./strip.js";

const STILL = 300; // milliseconds without a change before the whole picture is asked for
const MOST_RESULTS = 12; // that are kept of a visit
const AGAIN = 5; // seconds until the list of styles is requested again
const FORMATS = { jpeg: "JPEG", png: "PNG", webp: "WebP" };

const controls = get("controls");

let offers = { models: [], formats: [], max_bytes: Infinity, token: "", status: false };
let looks = [];
let enlargers = [];
let settings = read(location.search);
let sample = new URLSearchParams(location.search).get("photo");
let photo = null;
let opening = null; // of the photo that was chosen last
let shown = null; // the result that can be downloaded
let results = []; // of this visit, the newest first

// Current input. Any change aborts the request for the whole picture; only a change of look discards a preview.
let change = 0;
let previewing = null;
let whole = new AbortController();

const by = (id) => (each) => each.id === id;
const lookNow = () => looks.find(by(settings.look)) ?? null;
const mixNow = () => looks.find(by(settings.mix)) ?? null;
const enlargerNow = () => enlargers.find(by(settings.enlarge)) ?? null;
const stepsNow = () => plan(settings, lookNow(), enlargerNow());

// ---------------------------------------------------------------- the list of styles

async function learn() {
  offers = await about();
  looks = looksOf(offers.models);
  enlargers = enlargersOf(offers.models);
  if (!lookNow() && !(settings.look === NONE.id && enlargers.length)) settings.look = (looks[0] ?? NONE).id;
  if (!enlargerNow()) settings.enlarge = "";
  if (!partners(lookNow(), looks).includes(mixNow())) settings.mix = "";
  if (!offers.formats.includes(settings.format)) settings.format = DEFAULTS.format;
  get("tabs").hidden = !offers.status;
  if (strip.show(enlargers.length ? [NONE, ...looks] : looks) && photo) fillStrip();
  showSettings();
  if (!looks.length && !enlargers.length) say("No model is registered: perceptual models register NAME.");
}

const fillStrip = () => strip.fill(looks, photo);

// ---------------------------------------------------------------- settings

function showSettings() {
  const [look, other] = [lookNow(), mixNow()];
  const others = partners(look, looks);
  offer("mix", [["", "None"], ...others.map((each) => [each.id, each.title])]);
  offer("enlarge", [["", "Off"], ...enlargers.map((each) => [each.id, each.title])]);
  offer("format", offers.formats.map((each) => [each, FORMATS[each] ?? each]));
  offer("size", SIZES.map((each) => [each, each ? `${each} px` : photo ? `${photo.width} × ${photo.height}` : "Whole"]));
  const steps = stepsNow();
  const has = {
    style: look, strokes: look?.strokes, grain: look?.grain, mix: others.length, share: other, enlarge: enlargers.length,
    blended: enlargerNow()?.blended, smaller: paintsSmaller(steps, look), request: steps.length,
  };
  for (const each of controls.querySelectorAll("[data-needs]")) each.hidden = !has[each.dataset.needs];
  for (const [name, value] of Object.entries(settings)) {
    const field = controls.elements[name];
    if (field) field[field.type === "checkbox" ? "checked" : "value"] = value;
  }
  showValue("strength", percent(settings.strength));
  showValue("stroke", { 0: "fine", 1: "coarse" }[settings.stroke] ?? percent(settings.stroke));
  showValue("fidelity", { 0: "crisp", 1: "faithful" }[settings.fidelity] ?? percent(settings.fidelity));
  showValue("share", `${percent(1 - settings.share)} : ${percent(settings.share)}`);
  [get("one").textContent, get("other").textContent] = [look?.title, other?.title];
  strip.choose(settings.look);
  get("curl").textContent = curl(steps, photo?.name ?? "photo.jpg", resultName(), offers.token);
}

/** Sets the choices of a field, unless it has them already. */
function offer(name, choices) {
  const field = controls.elements[name];
  const key = JSON.stringify(choices);
  if (field.dataset.choices === key) return;
  field.dataset.choices = key;
  field.replaceChildren(...choices.map(([value, textContent]) => make("option", { value, textContent })));
}

function showValue(name, text) {
  controls.elements[name].ariaValueText = text;
  controls.querySelector(`output[for="${name}"]`).textContent = text;
}

const percent = (part) => `${Math.round(part * 100)} %`;

function resultName() {
  const stem = (photo?.name ?? "photo").replace(/\.\w+$/, "");
  const parts = [stem, lookNow()?.name, mixNow()?.name, enlargerNow() && `x${enlargerNow().scale}`];
  return `${parts.filter(Boolean).join("-")}.${extension(settings.format)}`;
}

controls.addEventListener("input", ({ target }) => {
  if (!(target.name in DEFAULTS)) return;
  const value = { checkbox: target.checked, range: Number(target.value) }[target.type] ?? target.value;
  set({ [target.name]: value }, !["format", "enlarge", "fidelity", "size"].includes(target.name));
});
controls.addEventListener("submit", (event) => event.preventDefault());
get("strip").addEventListener("change", ({ target }) => {
  previewing?.abort();
  set({ look: target.value, mix: "" });
});

/** Applies settings, which a preview may not show. */
function set(changes, withPreview = true) {
  Object.assign(settings, changes);
  showSettings();
  note();
  refresh(withPreview);
}

const note = () => history.replaceState(null, "", write(settings, sample) + location.hash);

// ---------------------------------------------------------------- the picture

/** Shows the result of the settings: from the cache, or a small preview first and then the whole picture. */
async function refresh(withPreview = true) {
  change += 1;
  whole.abort();
  strip.stop();
  quiet();
  if (!photo) return;
  busy(!settled());
  if (settled()) {
    previewing?.abort();
    fillStrip();
    if (finished()) return show(finished());
    showPhoto();
    return describe(titles(), "not enlarged: nothing to download");
  }
  allow(null);
  if (previewing && withPreview) return; // it continues with the latest settings, then requests the whole picture
  try {
    if (withPreview) await preview();
    if (!settled()) await complete();
  } catch (error) {
    if (error.name !== "AbortError") failed(error, resume);
  }
}

/** The result for the current photo and settings, if there is one. */
const finished = () => results.find((each) => each.photo === photo && same(each.settings, settings));

/** Whether there is nothing to request: the result is there, or the settings leave the photo as it is. */
const settled = () => finished() || !stepsNow().length;

/** Requests previews until the last is up to date. Outdated ones are shown too, so that a moving slider has an effect. */
async function preview() {
  for (let asked = null; asked !== change && !settled(); ) {
    asked = change;
    previewing = new AbortController();
    const { signal } = previewing;
    const look = lookNow();
    const steps = plan({ ...settings, format: "jpeg", size: "" }, look, null);
    try {
      const { blob } = steps.length ? await predict(steps, photo.preview, signal) : { blob: photo.preview };
      const url = await decoded(blob, signal);
      if (look === lookNow() && !settled()) {
        display(url);
        describe(titles(), "preview");
      }
      if (asked === change) fillStrip();
    } catch (error) {
      if (asked === change) throw error;
    } finally {
      previewing = null;
    }
  }
}

async function complete() {
  whole.abort();
  whole = new AbortController();
  const { signal } = whole;
  await sleep(STILL, signal);
  const result = {
    photo,
    settings: { ...settings },
    name: resultName(),
    ...titles(),
    ...(await predict(stepsNow(), photo.file, signal)),
  };
  result.url = await decoded(result.blob, signal);
  busy(false);
  keep(result);
  fillStrip();
}

/** The titles and artists of what is chosen. */
function titles() {
  const styles = [lookNow() ?? NONE, mixNow()].filter(Boolean);
  const joined = (name) => styles.map((each) => each[name]).filter(Boolean).join(" + ");
  return { title: joined("title"), artist: joined("artist") };
}

function describe({ title, artist }, facts) {
  get("caption").replaceChildren(make("b", { textContent: title }), ` ${artist ?? ""}`);
  get("times").textContent = facts;
}

/** The URL of a picture that is already decoded, which avoids flicker. Throws an error for what is not a picture. */
async function decoded(blob, signal) {
  const url = URL.createObjectURL(blob);
  const image = make("img", { src: url });
  try {
    await image.decode().catch((error) => {
      if (!image.naturalWidth) throw error; // otherwise it is only too large to be decoded in advance
    });
    signal.throwIfAborted();
  } catch (error) {
    URL.revokeObjectURL(url);
    throw error;
  }
  return url;
}

function display(url) {
  const previous = get("after").src;
  get("after").src = url;
  get("frame").dataset.result = "";
  if (!results.some((each) => each.url === previous)) URL.revokeObjectURL(previous);
}

/** Shows the photo alone. */
function showPhoto() {
  get("after").removeAttribute("src");
  delete get("frame").dataset.result;
  get("caption").textContent = get("times").textContent = "";
  allow(null);
}

async function show(result) {
  const asked = change;
  const after = get("after");
  after.src = result.url;
  after.alt = [`${result.photo.name}: ${result.title}`, result.artist].filter(Boolean).join(", ");
  get("frame").dataset.result = "";
  await after.decode().catch(() => {}); // where another has taken its place
  if (asked !== change) return;
  describe(result, [`${after.naturalWidth} × ${after.naturalHeight}`, ...times(result)].join(" · "));
  allow(result);
}

/** How long a result took and, if the server reports it, the time of each stage. */
function times({ time, stages }) {
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(milliseconds < 100 ? 3 : 2)} s`;
  const parts = Object.entries(stages).map(([name, value]) => `${name} ${seconds(value)}`);
  return [seconds(time), parts.join(", ")].filter(Boolean);
}

/** Enables download and full size for a result; disables them for null. */
function allow(result) {
  shown = result;
  const link = get("download");
  if (result) Object.assign(link, { href: result.url, download: result.name });
  else link.removeAttribute("href");
  link.ariaDisabled = result ? null : "true";
  get("enlarged").disabled = !result;
  for (const each of get("results").querySelectorAll("button"))
    each.ariaCurrent = each.dataset.url === result?.url ? "true" : null;
}

function keep(result) {
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
  opening?.abort();
  settings = { ...result.settings };
  if (result.photo !== photo) usePhoto(result.photo);
  showSettings();
  note();
  refresh();
}

const same = (one, other) => Object.keys(DEFAULTS).every((name) => one[name] === other[name]);

function busy(is) {
  get("frame").toggleAttribute("data-busy", is);
  get("stage").ariaBusy = is;
}

/** Shows an error, and retries where that may help: by itself if the server says when. */
function failed(error, again) {
  busy(false);
  if (!(error instanceof Trouble)) {
    console.error(error); // with where it happened
    sayError(`This browser reports: ${error.message}`, again);
    return;
  }
  sayError(error.message, error.retry || error.status === 401 || error.status >= 500 ? again : null, error.retry);
  if (error.status === 404) learn().catch(() => {}); // the model has gone
}

async function resume() {
  try {
    await learn();
  } catch (error) {
    failed(error, resume);
    return;
  }
  await refresh();
}

// ---------------------------------------------------------------- photos

/** Opens the photo that `load` gives, unless another is chosen meanwhile. */
async function take(load, name, from = null) {
  opening?.abort();
  opening = new AbortController();
  const { signal } = opening;
  say("Opening the photo …");
  try {
    const file = await load(signal);
    if (!looks.length) await learn(); // the list has not arrived, and the server reads with a look
    const opened = await open(file, name, looks, offers.max_bytes, signal);
    if (signal.aborted) return;
    usePhoto({ ...opened, sample: from });
  } catch (error) {
    if (!signal.aborted) failed(error, () => take(load, name, from));
    return;
  }
  showSettings();
  note();
  await refresh();
}

function usePhoto(opened) {
  photo = opened;
  sample = photo.sample;
  previewing?.abort();
  get("before").src = photo.url;
  get("before").alt = photo.name;
  showPhoto();
  get("stage").style.setProperty("--ratio", photo.width / photo.height);
  const byKeyboard = get("start").contains(document.activeElement);
  get("start").hidden = true;
  get("work").hidden = get("another").hidden = false;
  strip.reveal(settings.look);
  if (byKeyboard) strip.focus(settings.look); // the focused button is hidden now
  strip.clear();
}

const takeSample = (name) => take((signal) => sampleFile(name, signal), `${name}.jpg`, name);

const takeFirst = ([file]) => file && take(() => file, file.name);

for (const [button, input] of [["choose", "file"], ["another", "file"], ["take", "camera"]])
  get(button).addEventListener("click", () => get(input).click());
for (const input of [get("file"), get("camera")])
  input.addEventListener("change", () => {
    takeFirst(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
get("samples").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-sample]");
  if (button) takeSample(button.dataset.sample);
});
addEventListener("paste", ({ clipboardData }) => takeFirst(clipboardData.files));

const drag = (event, over) => {
  event.preventDefault();
  document.body.toggleAttribute("data-dragging", over && event.dataTransfer.types.includes("Files"));
};
addEventListener("dragover", (event) => drag(event, true));
addEventListener("dragleave", (event) => drag(event, event.relatedTarget !== null));
addEventListener("drop", (event) => {
  drag(event, false);
  takeFirst(event.dataTransfer.files);
});

// ---------------------------------------------------------------- comparing, full size, copying

function compare() {
  const part = get("compare").value;
  get("frame").style.setProperty("--part", part);
  get("compare").ariaValueText = `${part} % photo, ${100 - part} % result`;
}
get("compare").addEventListener("input", compare);

get("enlarged").addEventListener("click", async () => {
  const pixels = get("pixels");
  Object.assign(pixels, { src: shown.url, alt: get("after").alt });
  get("full").showModal();
  get("scroll").focus();
  await pixels.decode();
  pixels.width = pixels.naturalWidth / devicePixelRatio;
});

get("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(get("curl").textContent);
    say("Copied.");
  } catch {
    getSelection().selectAllChildren(get("curl"));
    say("Selected: copy it with Ctrl+C.");
  }
});

// ---------------------------------------------------------------- tabs, and the beginning

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
// Models may have changed while the page was hidden. If the server is down, the next request reports it.
addEventListener("focus", () => learn().catch(() => {}));

async function begin() {
  try {
    await learn();
  } catch (error) {
    sayError(error.message, begin, error.retry || AGAIN);
    return;
  }
  showTab();
  if (sample && !opening) await takeSample(sample);
  get("start").hidden = photo !== null;
}

compare();
begin();
