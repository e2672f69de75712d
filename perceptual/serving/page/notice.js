// Notices: a sentence at the bottom of the page, announced by screen readers.

import { get } from "./dom.js";

const READ = 8000; // milliseconds after which a sentence goes away by itself

let timer = null;

export function say(text) {
  put(text);
  timer = setTimeout(quiet, READ);
}

/** Shows an error; retries after some seconds, or on a click. */
export function sayAndRetry(text, seconds, attempt) {
  put(`${text} Trying again in ${seconds} s.`);
  const again = () => (quiet(), attempt());
  get("retry").onclick = again;
  get("retry").hidden = false;
  timer = setTimeout(again, seconds * 1000);
}

export function quiet() {
  put("");
}

function put(text) {
  clearTimeout(timer);
  get("message").textContent = text;
  get("notice").toggleAttribute("data-shown", text !== "");
  get("retry").hidden = true;
}
