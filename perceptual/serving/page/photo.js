// Opening a photo: by the browser, or by the server for formats that the browser cannot decode.

import { Trouble, predict } from "./api.js";
import { plan, DEFAULTS } from "./looks.js";

export const PREVIEW = 256; // pixels of the longest side of what is sent while settings change
const THUMB = 144; // of what is sent for the strip of styles
const SHOWN = 2048; // of a photo that only the server can read

/**
 * Opens a file. Formats that the browser cannot decode, such as TIFF, are converted by the server; a format that the
 * server cannot read either throws its Trouble.
 */
export async function open(file, name, looks, largest, signal) {
  if (file.size > largest)
    throw new Trouble(`The file has ${megabytes(file.size)}, and the server takes ${megabytes(largest)} at most.`);
  let shown = file;
  let bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) {
    shown = await converted(file, looks, signal);
    bitmap = await createImageBitmap(shown);
  }
  const { width, height } = bitmap;
  const [preview, thumb] = await Promise.all([reduced(bitmap, PREVIEW), reduced(bitmap, THUMB)]);
  bitmap.close();
  return { file, name, width, height, preview, thumb, url: URL.createObjectURL(shown) };
}

/** A file as PNG, by a look of strength 0: of the first model that can. */
async function converted(file, looks, signal) {
  let trouble = new Trouble("This browser cannot read the file.");
  for (const look of new Map(looks.map((each) => [each.model, each])).values()) {
    const steps = plan({ ...DEFAULTS, strength: 0, size: SHOWN, format: "png" }, look, null);
    try {
      return (await predict(steps, file, signal)).blob;
    } catch (error) {
      if (!error.ofModel) throw error;
      if (!trouble.retry) trouble = error; // a model that is busy may answer later
    }
  }
  throw trouble;
}

/** A picture with at most so many pixels on its longest side, as a small lossless file. */
async function reduced(bitmap, side) {
  const factor = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * factor));
  canvas.height = Math.max(1, Math.round(bitmap.height * factor));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MB`;
