// What the widgets share in which a network runs: where it runs, how its weights get there, and the
// drawing of its maps. In a worker, so that the page stays awake; on the page itself, in small
// steps, where workers are not allowed.

UNetBook.networks = {}; // weights that have arrived, by name: one copy for all widgets of a page

UNetBook.arrive = (name, text) => {
  UNetBook.networks[name] = text;
};

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

// Weights of the built site: base64 in a script of their own, which also loads from `file://`.
const fromSite = async (name, size, report) => {
  const address = new URL(`networks/${name}.mjs`, UNetBook.base);
  if (address.protocol === "file:") {
    await UNetBook.load(address);
    return;
  }
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the site does not have it (${answer.status})`);
  const decoder = new TextDecoder();
  let text = "";
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
    report((0.75 * text.length) / size);
  }
  UNetBook.arrive(name, text.slice(text.indexOf(',"') + 2, text.lastIndexOf('"')));
};

// Weights of a notebook: asked of the kernel.
const fromKernel = (model, name) =>
  new Promise((done, failed) => {
    const hear = ({ network }, [weights]) => {
      if (network !== name) return;
      model.off("msg:custom", hear);
      const { buffer, byteOffset, byteLength } = weights;
      UNetBook.arrive(name, buffer.slice(byteOffset, byteOffset + byteLength));
      done();
    };
    model.on("msg:custom", hear);
    model.send({ want: name });
    setTimeout(() => failed(new Error("the kernel does not answer; run the cell again")), 60000);
  });

// The place where a widget's network runs. `wake` loads engine and weights, once; `run` and the
// other calls are those of `engine.js`. `status` is an element that says how it stands.
UNetBook.live = (model) => {
  const { html } = UNetBook;
  const words = html("span");
  const bar = html("progress", { max: 1, "aria-label": "loading", hidden: true });
  const status = html("p", { role: "status" }, bar, " ", words);
  const waiting = new Map();
  let [ask, worker, loaded, about, number] = [undefined, undefined, undefined, undefined, 0];

  const say = (text, part) => {
    words.textContent = text;
    bar.hidden = part === undefined;
    if (part >= 0) bar.value = Math.min(part, 1);
    else bar.removeAttribute("value");
  };

  const inWorker = async () => {
    const { engine, work } = UNetBook;
    const text = `const UNetBook={engine:${engine},work:${work}};UNetBook.work(self,UNetBook.engine())`;
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    worker = new Worker(address);
    const call = (name, given) =>
      new Promise((done, failed) => {
        waiting.set(++number, { done, failed });
        worker.postMessage({ id: number, name, given });
      });
    worker.onmessage = ({ data: { id, value, error } }) => {
      const { done, failed } = waiting.get(id);
      waiting.delete(id);
      if (error) failed(new Error(error));
      else done(value);
    };
    await Promise.race([call("start"), new Promise((_, failed) => (worker.onerror = failed))]);
    URL.revokeObjectURL(address);
    return call;
  };

  const onPage = async () => {
    const call = UNetBook.engine();
    let [last, rested] = [call("start"), 0];
    await last;
    const pause = () => {
      if (performance.now() - rested < 12) return undefined;
      return new Promise((done) =>
        setTimeout(() => {
          rested = performance.now();
          done();
        }),
      );
    };
    return (name, given) => (last = last.catch(() => {}).then(() => call(name, given, pause)));
  };

  const start = async () => {
    try {
      return await inWorker();
    } catch {
      worker?.terminate();
      worker = undefined;
    }
    try {
      return await onPage();
    } catch (error) {
      throw new Error(`this page may not run WebAssembly, which the network needs (${error.message})`);
    }
  };

  const entry = (name) => model.get("networks").find((one) => one.name === name);

  const rouse = async (name) => {
    const { title, bytes, site } = entry(name);
    say(`Loading the engine and the network, ${megabytes(bytes)} …`, -1);
    if (!ask) ask = await start();
    if (loaded !== name) {
      if (!UNetBook.networks[name]) {
        if (!model.isStatic) await fromKernel(model, name);
        else if (site) await fromSite(name, bytes, (part) => say(words.textContent, part));
        else throw new Error("its weights are not part of this page; they are where its cell runs");
      }
      about = await ask("load", UNetBook.networks[name]);
      loaded = name;
    }
    say(`Runs in this page${worker ? "" : ", without a worker"}: ${title}. Nothing leaves it.`);
    return about;
  };

  let waking; // wakings wait for each other: two of them may want different networks
  const host = {
    status,
    say,
    get awake() {
      return loaded;
    },
    // Load what is needed for this network; throws, and says why, where that cannot be.
    wake: (name = model.get("network")) => {
      if (loaded === name) return Promise.resolve(about);
      waking = (waking ?? Promise.resolve())
        .catch(() => {})
        .then(() => (loaded === name ? about : rouse(name)))
        .catch((error) => {
          say(`The network cannot run here: ${error.message}. The stored example stays.`);
          error.said = true;
          throw error;
        });
      return waking;
    },
    call: (name, given) => ask(name, given),
    run: (given) => ask("run", given),
    fail: (error) => error.said || say(`The network has stopped: ${error.message}.`),
    close: () => worker?.terminate(),
  };

  // Keep only the newest of several wishes that come while one is being granted.
  host.newest = (act) => {
    let [busy, wish] = [false, undefined];
    return async (given) => {
      wish = given;
      if (busy) return;
      busy = true;
      try {
        while (wish !== undefined) {
          const now = wish;
          wish = undefined;
          await act(now);
        }
      } catch (error) {
        host.fail(error);
      } finally {
        busy = false;
      }
    };
  };

  const { bytes } = entry(model.get("network"));
  say(`Stored example. The network loads at your first touch: ${megabytes(bytes)}.`);
  return host;
};

// An image of the page as numbers from 0 to 1: (channels, height, width), row by row.
UNetBook.pixels = async (address, [height, width], channels = 1) => {
  const img = UNetBook.html("img", { src: address });
  await img.decode();
  const canvas = UNetBook.html("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(img, 0, 0);
  return UNetBook.planes(context.getImageData(0, 0, width, height).data, channels);
};

UNetBook.planes = (data, channels) => {
  const count = data.length / 4;
  const planes = new Float32Array(channels * count);
  for (let c = 0; c < channels; c++)
    for (let k = 0; k < count; k++) planes[c * count + k] = data[4 * k + c] / 255;
  return planes;
};

// All maps of a stage in one picture: painted from the engine's sheet, or from a stored picture of
// the same layout. `pick` is told the channel that was clicked; keyboards have a slider for that.
UNetBook.sheet = ({ name, channels, size, columns, rows, stored, shown }, pick) => {
  const { html } = UNetBook;
  const canvas = html("canvas", { role: "img", style: "display:block;width:100%;image-rendering:pixelated;cursor:zoom-in" });
  const mark = html("span", { style: "position:absolute;outline:2px solid var(--accent);pointer-events:none", hidden: true });
  const paint = (width, height, draw) => {
    [canvas.width, canvas.height] = [width, height];
    draw(canvas.getContext("2d"));
  };
  canvas.addEventListener("click", ({ offsetX, offsetY }) => {
    const column = Math.floor((offsetX / canvas.clientWidth) * columns);
    const channel = Math.floor((offsetY / canvas.clientHeight) * rows) * columns + column;
    if (channel < channels) pick(name, channel);
  });
  const label = (size) => {
    canvas.ariaLabel = `${name}: ${channels} maps of ${size.join("×")}, in viridis`;
    title.textContent = `${name} ${channels}×${size.join("×")}`;
  };
  const title = html("span", { style: "font-size:0.75rem" });
  // Thin lines between the maps.
  const line = (degrees) => `linear-gradient(${degrees}deg,var(--paper) 1px,transparent 1px)`;
  const grid =
    `background:${line(90)},${line(180)};background-size:${100 / columns}% ${100 / rows}%;` +
    "inset:0;pointer-events:none;position:absolute";
  const box = html("div", { style: "position:relative" }, canvas, html("div", { style: grid }), mark);
  const element = html("div", {}, title, box);
  label(size);
  if (stored) {
    const img = html("img", { src: stored });
    img.decode().then(() => {
      if (!element.live) paint(img.width, img.height, (context) => context.drawImage(img, 0, 0));
      shown?.();
    });
  }
  return {
    element,
    paint: ({ pixels, tile, size }) => {
      element.live = true;
      const [height, width] = [rows * tile[0], columns * tile[1]];
      paint(width, height, (context) => context.putImageData(new ImageData(pixels, width, height), 0, 0));
      label(size);
    },
    // One map of what is painted, on a canvas of its own.
    tile: (channel, to) => {
      const [width, height] = [canvas.width / columns, canvas.height / rows];
      [to.width, to.height] = [width, height];
      const [x, y] = [(channel % columns) * width, Math.floor(channel / columns) * height];
      to.getContext("2d").drawImage(canvas, -x, -y);
    },
    mark: (channel) => {
      mark.hidden = channel === undefined;
      const part = (count) => `${100 / count}%`;
      mark.style.width = part(columns);
      mark.style.height = part(rows);
      mark.style.left = `${(100 * (channel % columns)) / columns}%`;
      mark.style.top = `${(100 * Math.floor(channel / columns)) / rows}%`;
    },
  };
};

// A map as a picture, in viridis between its smallest and largest value, or between two given ones.
UNetBook.paintMap = (canvas, { values, height, width, range: [low, high] }, color = UNetBook.viridis) => {
  [canvas.width, canvas.height] = [width, height];
  const picture = new ImageData(width, height);
  const table = Array.from({ length: 256 }, (_, k) => color(k / 255).map(Math.round));
  const scale = high > low ? 255 / (high - low) : 0;
  values.forEach((value, k) => {
    const at = Math.max(0, Math.min(255, scale * (value - low))) | 0;
    picture.data.set(table[at], 4 * k);
    picture.data[4 * k + 3] = 255;
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
};
