// The looks of all models, the settings of one picture, and the requests that produce it.

export const DEFAULTS = {
  look: "", mix: "", share: 0.5, strength: 1, stroke: 0, grain: true, keep: false, size: "1024", enlarge: "",
  fidelity: 0.5, format: "jpeg",
};

export const SIZES = ["512", "1024", "2048", ""]; // pixels of the longest side; the last is the photo's own

/** The photo itself, to be enlarged. */
export const NONE = { id: "none", title: "No style", more: "Enlarge only", artist: "" };

/** All looks of the models: every style of every model, by an id that is part of the page's address. */
export function looksOf(models) {
  const looks = models.flatMap((model) =>
    model.styles.map((style) => ({
      ...style, model: model.name, named: model.named, id: model.named ? `${model.name}/${style.name}` : model.name,
      smaller: model.large_painted_smaller,
    })),
  );
  for (const look of looks) // the same painting twice: distinguish them
    look.more = looks.some((each) => each !== look && each.title === look.title) ? look.id : look.artist;
  return looks;
}

/** All ways to enlarge, by an id of the same kind. */
export function enlargersOf(models) {
  const enlargers = models.flatMap((model) =>
    model.scales.map((scale) => ({
      id: `${model.name}:${scale}`, model: model.name, scale, named: model.named, blended: model.blended.includes(scale),
    })),
  );
  const alone = (each) => enlargers.filter(({ scale }) => scale === each.scale).length === 1;
  for (const each of enlargers) each.title = `×${each.scale}${alone(each) ? "" : ` ${each.model}`}`;
  return enlargers;
}

/** The looks that can be mixed with one: those of the same network. */
export const partners = (look, looks) =>
  looks.filter((each) => each !== look && look?.named && each.model === look.model && each.network === look.network);

/** The requests for a picture: one, or two if another model enlarges it. `look` is null for the photo itself: none unless it is enlarged. */
export function plan(settings, look, enlarger) {
  const format = { format: settings.format };
  const enlarging = enlarger ? { ...scaled(enlarger), ...faithful(settings, enlarger) } : {};
  if (!look) return enlarger ? [{ model: enlarger.model, fields: { ...enlarging, ...format } }] : [];
  const fields = styled(settings, look);
  if (!enlarger) return [{ model: look.model, fields: { ...fields, ...format } }];
  if (enlarger.model === look.model)
    return [{ model: look.model, fields: { ...fields, ...enlarging, ...format } }];
  return [
    { model: look.model, fields: { ...fields, format: "png" } },
    { model: enlarger.model, fields: { ...enlarging, ...format } },
  ];
}

/** Whether these requests paint a large photo at a smaller size, as when the first sets no size. */
export const paintsSmaller = ([first], look) => look?.smaller && !first.fields["max-size"] && !first.fields.scale;

// Requests to a collection name the factor; a network has only one.
const scaled = (enlarger) => (enlarger.named ? { scale: enlarger.scale } : {});

const faithful = ({ fidelity }, enlarger) => (enlarger.blended && fidelity !== DEFAULTS.fidelity ? { fidelity } : {});

function styled(settings, look) {
  const fields = {};
  if (look.named) fields.style = mixture(settings, look);
  if (settings.strength < 1) fields.strength = settings.strength;
  if (settings.stroke > 0 && look.strokes) fields.stroke = settings.stroke;
  if (!settings.grain && look.grain) fields.grain = 0;
  if (settings.keep) fields["keep-colors"] = "on";
  if (settings.size) fields["max-size"] = settings.size;
  return fields;
}

function mixture({ mix, share }, look) {
  const other = mix.slice(mix.indexOf("/") + 1);
  if (!mix || share === 0) return look.name;
  return share === 1 ? other : `${look.name}:${round(1 - share)},${other}:${round(share)}`;
}

const round = (number) => Math.round(number * 100) / 100;

/** The settings in an address; missing and invalid ones have their defaults. What the server offers is not checked. */
export function read(search) {
  const given = new URLSearchParams(search);
  const settings = { ...DEFAULTS };
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (!given.has(name)) continue;
    const value = given.get(name);
    if (typeof usual === "string") settings[name] = value;
    else if (typeof usual === "boolean") settings[name] = value === "on";
    else if (value && Number(value) >= 0 && Number(value) <= 1) settings[name] = Number(value);
  }
  if (!SIZES.includes(settings.size)) settings.size = DEFAULTS.size;
  return settings;
}

/** The address of settings, without those that are defaults. */
export function write(settings, sample) {
  const given = new URLSearchParams();
  if (sample) given.set("photo", sample);
  for (const [name, usual] of Object.entries(DEFAULTS))
    if (settings[name] !== usual) given.set(name, { true: "on", false: "off" }[settings[name]] ?? settings[name]);
  return given.size ? `?${given}` : "?";
}

/** The equivalent shell commands. `token` is the command that prints a token, if one is needed. */
export function curl(steps, photo, result, token) {
  const place = (model) => new URL(`predictions/${model}`, location.href).href.split("?")[0];
  return steps
    .map(({ model, fields }, index) => {
      const last = index === steps.length - 1;
      const input = index === 0 ? photo : "step.png";
      const given = Object.entries(fields).map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`);
      const file = `data=@"${input.replace(/["\\]/g, "\\$&")}"`; // curl's own quotes, within the shell's
      return [
        "curl -f",
        ...(token ? [`-H "Authorization: Bearer $(${token})"`] : []),
        `-F ${quoted(file)}`,
        ...given,
        quoted(place(model)),
        `-o ${quoted(last ? result : "step.png")}`,
      ].join(" ");
    })
    .join(" &&\n");
}

export const extension = (format) => (format === "jpeg" ? "jpg" : format);

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
