// The strip of styles: thumbnails of the current photo in each of them.

import { predict } from "./api.js";
import { get, make, picture, sleep } from "./dom.js";
import { DEFAULTS, plan } from "./looks.js";

const TRIES = 3; // attempts, if the server sends Retry-After

let filling = new AbortController();

/** Shows the looks to choose from. Returns false if they are shown already. */
export function show(looks) {
  const ids = looks.map((each) => each.id).join("\n");
  if (get("strip").dataset.ids === ids) return false;
  get("strip").dataset.ids = ids;
  get("strip").replaceChildren(...looks.map(choice));
  return true;
}

function choice(look) {
  const input = make("input", { type: "radio", name: "look", value: look.id });
  const names = [look.title, look.more].map((textContent) => make("span", { textContent, dir: "auto" }));
  const title = [look.title, look.more].filter(Boolean).join("\n");
  return make("label", { className: "look", title }, input, make("span", { className: "thumb" }), ...names);
}

/** Marks the chosen look, and scrolls it into view. */
export function choose(id) {
  const input = inputOf(id);
  if (!input || input.checked) return;
  input.checked = true;
  reveal(id);
}

/** Scrolls a look into view, if the strip is visible. */
export function reveal(id) {
  inputOf(id)?.parentElement.scrollIntoView({ block: "nearest", inline: "nearest" });
}

export const focus = (id) => inputOf(id)?.focus();

/** Clears the thumbnails, which show another photo. */
export function clear() {
  stop();
  for (const each of get("strip").querySelectorAll(".thumb")) each.replaceChildren();
}

/** Stops requesting thumbnails, as the picture itself has priority. */
export const stop = () => filling.abort();

/** Requests the missing thumbnails, those in view first: one at a time, so that a change need not wait for more. */
export async function fill(looks, photo) {
  stop();
  filling = new AbortController();
  put("none", photo.thumb);
  const { signal } = filling;
  try {
    for (let look; (look = nearest(looks.filter((each) => inputOf(each.id) && !thumbOf(each.id).hasChildNodes()))); ) {
      const steps = plan({ ...DEFAULTS, size: "" }, look, null);
      put(look.id, (await patiently(() => predict(steps, photo.thumb, signal), signal)).blob);
    }
  } catch {
    // Errors are shown with the picture itself; the strip is filled again after its next success.
  }
}

/** The look that is nearest to the middle of what is in view. */
function nearest(looks) {
  const middle = (each) => each.getBoundingClientRect().left + each.getBoundingClientRect().right;
  const distance = (look) => Math.abs(middle(thumbOf(look.id)) - middle(get("strip")));
  return looks.toSorted((one, other) => distance(one) - distance(other))[0];
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

// A mouse's wheel moves the strip, until it is at an end.
get("strip").addEventListener("wheel", (event) => {
  const before = get("strip").scrollLeft;
  const onwards = getComputedStyle(get("strip")).direction === "rtl" ? -1 : 1;
  if (!event.deltaX && !event.shiftKey) get("strip").scrollLeft += onwards * event.deltaY;
  if (get("strip").scrollLeft !== before) event.preventDefault();
}, { passive: false });

const inputOf = (id) => get("strip").querySelector(`input[value="${CSS.escape(id)}"]`);
const thumbOf = (id) => inputOf(id).nextElementSibling;

function put(id, blob) {
  if (inputOf(id) && !thumbOf(id).hasChildNodes()) thumbOf(id).replaceChildren(picture(blob));
}
