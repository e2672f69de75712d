// The strip of styles: this very photo in each of them.

import { predict } from "./api.js";
import { get, make, picture, sleep } from "./dom.js";
import { DEFAULTS, plan } from "./looks.js";

const AT_ONCE = 2; // requests, so that a server of one worker always has one to go on with
const TRIES = 3; // where the server says when to try again

let filling = new AbortController();

/** Shows the looks to choose from, if they are not shown already; says whether they were not. */
export function show(looks) {
  const ids = looks.map((each) => each.id).join("\n");
  if (get("strip").dataset.ids === ids) return false;
  get("strip").dataset.ids = ids;
  get("strip").replaceChildren(...looks.map(choice));
  return true;
}

function choice(look) {
  const input = make("input", { type: "radio", name: "look", value: look.id });
  const names = [look.title, look.more].map((text) => make("span", { textContent: text, dir: "auto", title: text }));
  return make("label", { className: "look" }, input, make("span", { className: "thumb" }), ...names);
}

/** Marks the chosen look, and brings it into view. */
export function choose(id) {
  const input = inputOf(id);
  if (!input || input.checked) return;
  input.checked = true;
  reveal(id);
}

/** Brings a look into view, where there is a strip to be seen. */
export function reveal(id) {
  inputOf(id)?.parentElement.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** Empties the thumbnails, which are of another photo. */
export function clear() {
  stop();
  for (const each of get("strip").querySelectorAll(".thumb")) each.replaceChildren();
}

/** Asks for no more thumbnails: the server is needed for the picture itself. */
export const stop = () => filling.abort();

/** Asks for the photo in every look that has no thumbnail of it yet, in this order. */
export async function fill(looks, photo) {
  stop();
  filling = new AbortController();
  put("none", photo.thumb);
  const { signal } = filling;
  const waiting = looks.filter((each) => inputOf(each.id) && !thumbOf(each.id).hasChildNodes());
  const work = async () => {
    for (let look; (look = waiting.shift()); ) {
      const steps = plan({ ...DEFAULTS, size: "" }, look, null);
      put(look.id, (await patiently(() => predict(steps, photo.thumb, signal), signal)).blob);
    }
  };
  // Errors are shown with the picture itself; after its next success the strip is filled again.
  await Promise.all(Array.from({ length: AT_ONCE }, work)).catch(() => {});
}

async function patiently(attempt, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (!error.retry || tries === TRIES) throw error;
      await sleep(error.retry * 1000, signal);
    }
  }
}

const inputOf = (id) => get("strip").querySelector(`input[value="${CSS.escape(id)}"]`);
const thumbOf = (id) => inputOf(id).nextElementSibling;

function put(id, blob) {
  if (inputOf(id) && !thumbOf(id).hasChildNodes()) thumbOf(id).replaceChildren(picture(blob));
}
