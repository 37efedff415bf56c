// A U-Net at work: draw on the image, and all maps of the U, the probabilities and the mask follow.

UNetBook.register("live-u", (model, el) => {
  const { html, put, choice, slider, button, paintMap, planes, pixels, follow } = UNetBook;
  const get = (name) => model.get(name);
  const host = UNetBook.live(model);
  const spoken = UNetBook.speaker();
  const classes = get("classes");
  const networks = get("networks");
  const entry = () => networks.find(({ name }) => name === get("network"));
  const SIDE = 256; // pixels of a picture that is taken
  const ARROWS = {
    "": "the image itself",
    blue: "3×3 convolution and ReLU",
    red: "2×2 max pooling: the largest of four",
    green: "up-convolution: twice the size",
    gray: "a copy",
    teal: "1×1 convolution",
  };

  // --- the image: a part of the source, more or less contrast, noise, and what was drawn

  let source; // { values, height, width, channels }
  let side = get("side");
  let [drawn, ink, noise] = [];
  let [contrast, grain] = [1, 0];
  const area = () => {
    const [tall, broad] = [Math.min(side, source.height), Math.min(side, source.width)];
    return { tall, broad, top: (source.height - tall) >> 1, left: (source.width - broad) >> 1 };
  };
  const tone = (values, part) => values.slice().sort()[Math.floor(part * (values.length - 1))];
  const wipe = () => {
    const { tall, broad } = area();
    drawn = new Uint8Array(tall * broad);
    ink = new Float32Array(tall * broad);
    // The sum of four numbers in [0, 1) is nearly Gaussian, with variance 1/3.
    const one = () => (Math.random() + Math.random() + Math.random() + Math.random() - 2) * 3 ** 0.5;
    noise = Float32Array.from({ length: tall * broad }, one);
  };
  const compose = () => {
    const { tall, broad, top, left } = area();
    const image = new Float32Array(source.channels * tall * broad);
    for (let c = 0; c < source.channels; c++)
      for (let y = 0; y < tall; y++)
        for (let x = 0; x < broad; x++) {
          const k = y * broad + x;
          const from = source.values[(c * source.height + y + top) * source.width + x + left];
          const seen = 0.5 + contrast * (from - 0.5) + grain * noise[k];
          image[c * tall * broad + k] = drawn[k] ? ink[k] : Math.min(Math.max(seen, 0), 1);
        }
    return { image, height: tall, width: broad };
  };

  // --- what is shown

  const PIXELS = "display:block;width:100%;image-rendering:pixelated";
  const canvas = html("canvas", {
    role: "application",
    tabindex: 0,
    style: `${PIXELS};cursor:crosshair;touch-action:none`,
  });
  const chance = html("canvas", { role: "img", style: PIXELS });
  const mask = html("canvas", { role: "img", style: PIXELS });
  const large = html("canvas", { role: "img", style: PIXELS });
  const [about, made] = [html("p"), html("p")];
  const title = html("strong");
  const clock = html("span");
  let pen; // where the keyboard's pen stands

  const paintImage = ({ image, height, width }) => {
    const picture = new ImageData(width, height);
    const channels = source.channels;
    for (let k = 0; k < height * width; k++) {
      for (let c = 0; c < 3; c++)
        picture.data[4 * k + c] = 255 * image[(channels === 3 ? c : 0) * height * width + k];
      picture.data[4 * k + 3] = 255;
    }
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.putImageData(picture, 0, 0);
    if (pen) {
      context.strokeStyle = "#e07b00";
      context.strokeRect(pen.x - 2.5, pen.y - 2.5, 6, 6);
    }
    canvas.ariaLabel = `Image, ${height}×${width} pixels. Arrow keys move the pen, space draws.`;
  };

  const pick = (stage, channel) => {
    model.set("stage", stage);
    put(model, "channel", channel);
  };
  const stages = get("stages").map(({ name, shape: [channels, ...size], columns, rows, sheet }) => ({
    name,
    ...UNetBook.sheet({ name, channels, size, columns, rows, stored: sheet, shown: () => draw() }, pick),
  }));
  const named = Object.fromEntries(stages.map((stage) => [stage.name, stage]));

  const showAnswer = ({ probabilities, classes: found, height, width }) => {
    const shown = get("shown");
    const values = probabilities.subarray(shown * height * width, (shown + 1) * height * width);
    const gray = (value) => Array(3).fill(255 - 255 * value); // dark, as membranes are
    paintMap(chance, { values, height, width, range: [0, 1] }, gray);
    const where = Float32Array.from(found, (index) => Number(index === shown));
    paintMap(mask, { values: where, height, width, range: [0, 1] }, gray);
    const part = where.reduce((sum, value) => sum + value, 0) / where.length;
    const words = `${classes[shown]}: ${(100 * part).toFixed(1)}% of the pixels`;
    label(words);
    return words;
  };
  const label = (words) => {
    const name = classes[get("shown")];
    chance.ariaLabel = `Probability of ${name}, black is 1. ${words}`;
    mask.ariaLabel = `Mask: black where ${name} is the most probable class. ${words}`;
    heads[1].textContent = `${name}: probability`;
    heads[2].textContent = `${name}: mask`;
  };

  const number = (value) => Number(value.toPrecision(3)).toString();
  const showMap = (map) => {
    paintMap(large, map);
    const [low, high] = map.range;
    const words = `${map.height}×${map.width} values from ${number(low)} to ${number(high)}`;
    title.textContent = `${get("stage")}, map ${get("channel")}`;
    about.textContent = `${words}, dark violet to yellow.`;
    const parts = map.sources.map(({ name, channel, share }) =>
      share === undefined ? `${name} ${channel}` : `${name} ${channel} (${Math.round(100 * share)}%)`,
    );
    const most = map.sources[0]?.share === undefined ? "" : ", most of all of";
    made.textContent = parts.length
      ? `Made by ${ARROWS[map.arrow]}${most} ${parts.join(", ")}.`
      : `This is ${ARROWS[map.arrow]}.`;
    large.ariaLabel = `${title.textContent}: ${words}`;
  };

  // --- running

  const ask = host.newest(async ({ given, wanted }) => {
    await host.wake();
    const open = { name: get("stage"), channel: get("channel") };
    const result = await host.run({ ...given, sheets: stages.map(({ name }) => name), open });
    for (const one of result.sheets) named[one.name].paint(one);
    const words = showAnswer(result);
    if (result.open) showMap(result.open);
    clock.textContent = `One pass: ${result.milliseconds.toFixed(0)} ms.`;
    if (wanted) spoken.say(`${words}. ${title.textContent}: ${about.textContent}`);
    if (maps.input.options.length === stages.length) await listAll();
  });
  const update = (wanted = true) => {
    const given = compose();
    paintImage(given);
    ask({ given, wanted });
  };
  const listAll = async () => {
    const all = await host.call("list");
    maps.input.replaceChildren(...all.map(({ name }) => html("option", { value: name }, name)));
    for (const { name, channels } of all) counts[name] = channels;
    maps.set(get("stage"));
  };

  // --- drawing

  let [tool, brush] = ["dark", 3];
  const stamp = (x, y) => {
    const { tall, broad } = area();
    for (let dy = -brush; dy <= brush; dy++)
      for (let dx = -brush; dx <= brush; dx++) {
        const [row, column] = [Math.round(y) + dy, Math.round(x) + dx];
        if (dx * dx + dy * dy > brush * brush + 1) continue;
        if (row < 0 || column < 0 || row >= tall || column >= broad) continue;
        const k = row * broad + column;
        drawn[k] = tool !== "undo";
        ink[k] = tool === "dark" ? tones[0] : tones[1];
      }
  };
  let before;
  const place = ({ clientX, clientY }) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return {
      x: ((clientX - left) / width) * canvas.width - 0.5,
      y: ((clientY - top) / height) * canvas.height - 0.5,
    };
  };
  const stroke = (event) => {
    if (!source || !(event.buttons & 1)) return;
    const now = place(event);
    const from = event.type === "pointerdown" ? now : before ?? now;
    const steps = Math.max(1, Math.ceil(Math.hypot(now.x - from.x, now.y - from.y)));
    for (let k = 1; k <= steps; k++)
      stamp(from.x + ((now.x - from.x) * k) / steps, from.y + ((now.y - from.y) * k) / steps);
    before = now;
    update(false);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pen = undefined;
    stroke(event);
  });
  canvas.addEventListener("pointermove", stroke);
  canvas.addEventListener("pointerup", () => source && update());
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!source || (!move && event.key !== " ")) return;
    event.preventDefault();
    pen ??= { x: canvas.width >> 1, y: canvas.height >> 1 };
    const far = event.shiftKey ? 1 : 4;
    const [dx, dy] = move ?? [0, 0];
    pen.x = Math.min(Math.max(pen.x + far * dx, 0), canvas.width - 1);
    pen.y = Math.min(Math.max(pen.y + far * dy, 0), canvas.height - 1);
    if (!move) {
      stamp(pen.x, pen.y);
      update();
    } else paintImage(compose());
    spoken.say(`pen at row ${pen.y}, column ${pen.x}${move ? "" : ", drawn"}`);
  });

  // --- an image of one's own: read, drawn and computed here; nothing is sent anywhere

  const open = async (file) => {
    if (!file.type.startsWith("image/"))
      throw `this is no picture (${file.type || "of unknown kind"}); take a PNG or JPEG`;
    const bitmap = await createImageBitmap(file).catch(() => {
      throw "your browser cannot read it; save it as PNG or JPEG";
    });
    const { width, height } = bitmap;
    const short = Math.min(width, height);
    if (short < 16) throw `${height}×${width} pixels are too few; take at least 16×16`;
    const least = get("sizes")[0];
    const scale = fitting.input.value === "all" ? SIDE / short : Math.max(1, least / short);
    const size = Math.min(SIDE, Math.round(short * scale));
    const taken = Math.round(size / scale);
    const context = html("canvas", { width: size, height: size }).getContext("2d");
    context.fillStyle = "#fff"; // below what is transparent
    context.fillRect(0, 0, size, size);
    context.imageSmoothingQuality = "high";
    const [left, top] = [(width - taken) >> 1, (height - taken) >> 1];
    context.drawImage(bitmap, left, top, taken, taken, 0, 0, size, size);
    bitmap.close();
    const { data } = context.getImageData(0, 0, size, size);
    const { channels } = source;
    if (channels === 1)
      for (let k = 0; k < data.length; k += 4)
        data[k] = 0.299 * data[k] + 0.587 * data[k + 1] + 0.114 * data[k + 2];
    const values = planes(data, channels);
    if (entry().even) {
      // As in training: divided by the value that one in a thousand is above.
      const bright = Math.max(1e-4, tone(values, 0.999));
      values.forEach((value, k) => (values[k] = value / bright));
    }
    source = { values, height: size, width: size, channels };
    resize(Math.max(...get("sizes").filter((one) => one <= Math.min(size, side)), least));
    const now = size === taken ? "" : `, ${scale < 1 ? "shrunk" : "enlarged"} to ${size}×${size}`;
    return `the middle ${taken}×${taken} of ${height}×${width} pixels${now}. It stays in this page.`;
  };
  let chosen;
  const take = async (file) => {
    if (!file) return;
    await ready;
    try {
      note.textContent = `${file.name}: ${await open(file)}`;
      chosen = file;
      update();
    } catch (why) {
      note.textContent = `${file.name}: ${why}.`;
    }
  };
  const file = html("input", {
    type: "file", accept: "image/*", hidden: true, tabindex: -1, "aria-label": "your own picture",
  });
  file.addEventListener("change", () => {
    take(file.files[0]);
    file.value = ""; // the same file may be taken again
  });
  const note = html("p", { role: "status" });

  // --- controls

  const resize = (now) => {
    side = now;
    pen = undefined;
    sizes.set(side);
    wipe();
  };
  const touch = (react) => (value) => {
    react(value);
    if (source) update();
  };
  const tools = choice("pen", {
    options: { dark: "dark, like a membrane", light: "light, like a cell", undo: "takes drawing back" },
    value: tool,
    change: (value) => (tool = value),
  });
  const width = slider("width", { min: 1, max: 8, value: brush, show: (r) => `${2 * r + 1} px`, change: (r) => (brush = r) });
  const contrasts = slider("contrast", { min: 0, max: 200, step: 10, value: 100, show: (v) => `${v}%`, change: touch((v) => (contrast = v / 100)) });
  const noises = slider("noise", { min: 0, max: 30, value: 0, show: (v) => `${v}%`, change: touch((v) => (grain = v / 100)) });
  const sizes = choice("pixels", {
    options: Object.fromEntries(get("sizes").map((one) => [one, `${one}×${one}`])),
    value: side,
    change: touch((value) => resize(Number(value))),
  });
  const fitting = choice("of your picture", {
    options: { middle: "the middle, pixel by pixel", all: "all of it, shrunk" },
    value: "middle",
    change: () => take(chosen),
  });
  const which = choice("network", {
    options: Object.fromEntries(networks.map(({ name, title }) => [name, title])),
    value: get("network"),
    change: (name) => put(model, "network", name),
  });
  const kinds = choice("class", {
    options: Object.fromEntries(classes.map((name, k) => [k, name])),
    value: get("shown"),
    change: (value) => put(model, "shown", Number(value)),
  });
  const counts = Object.fromEntries(get("stages").map(({ name, shape }) => [name, shape[0]]));
  const maps = choice("stage", {
    options: Object.fromEntries(stages.map(({ name }) => [name, name])),
    value: get("stage"),
    change: (name) => pick(name, Math.min(get("channel"), counts[name] - 1)),
  });
  const channels = slider("map", {
    min: 0,
    max: counts[get("stage")] - 1,
    value: get("channel"),
    change: (value) => put(model, "channel", value),
  });
  const again = button("Begin again", async () => {
    chosen = undefined;
    note.textContent = "";
    [contrast, grain] = [1, 0];
    contrasts.set(100);
    noises.set(0);
    await restore();
    update();
  });
  const own = button("Your own picture …", () => file.click());

  // --- putting it together

  const controls = (...all) => html("div", { class: "unet-controls" }, all);
  const heads = ["image", "", ""].map((words) => html("span", {}, words));
  const pane = (head, ...content) => html("div", { style: "min-width:0" }, head, content);
  const arrow = (color, words) =>
    html("div", { style: `border-left:4px solid ${color};font-size:0.75rem;padding-left:0.4rem` }, words);
  // Left the contracting path, right the expansive path, between them what the skips carry.
  const at = (row, column, ...content) =>
    html("div", { style: `grid-area:${row}/${column};min-width:0` }, content);
  const copy = html("span", { role: "img", "aria-label": "copied", style: "color:#777" }, "→");
  const rows = stages.filter(({ name }) => name.startsWith("enc")).length;
  const u = html(
    "div",
    {
      style:
        "align-items:center;display:grid;gap:0.4rem;margin:0.75rem 0;" +
        "grid-template-columns:minmax(0,1fr) auto minmax(0,1fr)",
    },
    stages.map(({ name, element }) => {
      const row = Number(name.slice(3));
      if (name.startsWith("enc"))
        return [at(row, 1, element, arrow("#b3261e", "↓ max pooling")), at(row, 2, copy.cloneNode(true))];
      if (name.startsWith("dec")) return at(row, 3, element, arrow("#2e7d32", "↑ up-convolution"));
      return at(rows + 1, "1/span 1/4;justify-self:center;width:50%", element);
    }),
  );
  const quality = html("p");
  const drop = html(
    "div",
    { style: "display:grid;gap:0.5rem;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));max-width:44rem" },
    pane(heads[0], canvas),
    pane(heads[1], chance),
    pane(heads[2], mask),
  );
  for (const event of ["dragover", "drop"])
    el.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      if (event === "drop") take(dragged.dataTransfer.files[0]);
    });
  el.append(
    controls(networks.length > 1 ? which : null, tools, width, contrasts, noises, sizes, classes.length > 2 ? kinds : null),
    controls(own, file, fitting, again),
    drop,
    host.status,
    html("p", {}, clock),
    note,
    u,
    controls(maps, channels),
    html(
      "div",
      { class: "unet-details", style: "display:flex;flex-wrap:wrap;gap:1rem" },
      html("div", { style: "flex:1 1 12rem;max-width:20rem" }, large),
      html("div", { style: "flex:1 1 12rem" }, title, about, made),
    ),
    quality,
    spoken,
  );

  const draw = () => {
    const [stage, channel] = [get("stage"), get("channel")];
    for (const one of stages) one.mark(one.name === stage ? channel : undefined);
    if (!host.awake) named[stage].tile(channel, large);
    maps.set(stage);
    channels.input.max = counts[stage] - 1;
    channels.set(channel);
    which.set(get("network"));
    const { title: name, words } = entry();
    quality.textContent = `Network: ${name}. ${words}`;
  };
  const still = async (canvas, address) => {
    const img = html("img", { src: address });
    await img.decode();
    if (host.awake) return;
    [canvas.width, canvas.height] = [img.width, img.height];
    canvas.getContext("2d").drawImage(img, 0, 0);
  };
  const restore = async () => {
    const [height, width] = get("size");
    const channels = get("colors");
    const values = await pixels(get("picture"), [height, width], channels);
    source = { values, height, width, channels };
    resize(get("side"));
    // Ink as dark and as light as this image has it.
    tones = [0.03, 0.8].map((part) => tone(values, part));
    paintImage(compose());
  };
  let tones;
  const ready = restore();
  still(chance, get("probability"));
  still(mask, get("mask"));
  label("stored example");
  title.textContent = `${get("stage")}, map ${get("channel")}`;
  about.textContent = "Touch a map, or draw on the image: the network begins to run.";
  large.ariaLabel = about.textContent;
  draw();
  const frame = UNetBook.onFrame(draw);
  const stopFrame = follow(model, ["stage", "channel", "network", "shown"], frame);
  const stopAsk = follow(model, ["stage", "channel", "network", "shown"], () => ready.then(() => ask({ given: compose(), wanted: true })));
  return () => {
    stopFrame();
    stopAsk();
    host.close();
  };
});
