// Notices: a sentence at the bottom of the page, announced by screen readers. It goes with the next change.

import { get } from "./dom.js";

const READ = 8000; // milliseconds after which a sentence goes away by itself

let timer = null;

export function say(text) {
  put(text);
  timer = setTimeout(quiet, READ);
}

/** Shows an error, which stays; offers a new attempt, if one is given, and makes it after some seconds unless they are 0. */
export function sayError(text, attempt = null, seconds = 0) {
  put(seconds ? `${text} Trying again in ${seconds} s.` : text);
  const again = () => (quiet(), attempt());
  get("retry").onclick = again;
  get("retry").hidden = !attempt;
  get("close").hidden = false;
  if (seconds) timer = setTimeout(again, seconds * 1000);
}

export function quiet() {
  put("");
}

function put(text) {
  clearTimeout(timer);
  get("message").textContent = text;
  get("notice").toggleAttribute("data-shown", text !== "");
  get("retry").hidden = get("close").hidden = true;
}

get("close").onclick = quiet;
