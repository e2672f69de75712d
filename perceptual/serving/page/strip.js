// The strip of styles: thumbnails of the current photo in each of them.

import { predict } from "./api.js";
import { get, make, picture, sleep } from "./dom.js";
import { DEFAULTS, plan } from "./looks.js";

const TRIES = 3; // rounds without a new thumbnail, if models are busy

let filling = new AbortController();
const failed = new Set(); // the looks whose models cannot make a thumbnail of this photo

/** Shows the looks to choose from. Returns false if they are shown already. */
export function show(looks) {
  const ids = looks.map((each) => each.id).join("\n");
  if (get("strip").dataset.ids === ids) return false;
  get("strip").dataset.ids = ids;
  failed.clear();
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
  failed.clear();
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
    for (let tries = 0; tries < TRIES; tries++) {
      const busy = new Map(); // the models to ask later, and after how many seconds
      for (let look; (look = nearest(looks.filter((each) => isMissing(each) && !busy.has(each.model)))); ) {
        const wait = await request(look, photo, signal);
        if (wait) busy.set(look.model, wait);
        else tries = 0;
      }
      if (!busy.size) return;
      await sleep(Math.min(...busy.values()) * 1000, signal);
    }
  } catch {
    // Errors are shown with the picture itself; the strip is filled again after its next success.
  }
}

/** Requests a thumbnail. Returns after how many seconds to try again, if its model is busy, and otherwise 0. */
async function request(look, photo, signal) {
  try {
    const steps = plan({ ...DEFAULTS, size: "" }, look, null);
    put(look.id, (await predict(steps, photo.thumb, signal)).blob);
  } catch (error) {
    if (!error.ofModel) throw error;
    if (error.retry) return error.retry;
    failed.add(look.id);
  }
  return 0;
}

const isMissing = ({ id }) => inputOf(id) && !thumbOf(id).hasChildNodes() && !failed.has(id);

/** The look that is nearest to the middle of what is in view. */
function nearest(looks) {
  const middle = (each) => each.getBoundingClientRect().left + each.getBoundingClientRect().right;
  const distance = (look) => Math.abs(middle(thumbOf(look.id)) - middle(get("strip")));
  return looks.toSorted((one, other) => distance(one) - distance(other))[0];
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
