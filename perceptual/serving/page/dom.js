// DOM helpers for all parts of the page.

export const get = (id) => document.getElementById(id);

/** An element with properties and children; strings become text nodes. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** An image of a blob, whose URL is revoked once it is loaded. */
export function picture(blob, alt = "") {
  const image = make("img", { alt, src: URL.createObjectURL(blob) });
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  return image;
}

export function sleep(milliseconds, signal) {
  return new Promise((done, broken) => {
    signal.throwIfAborted();
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), broken(signal.reason)), { once: true });
  });
}
