// A U-Net in the page: reads a network, runs it on an image, and leaves every map to be looked at.
// The arithmetic is in `engine.c`; this strings it together. The text of this one function is also
// the script of the worker in which it runs, so it must not use anything from outside.

UNetBook.engine = () => {
  const PAGE = 65536; // bytes that WebAssembly's memory grows by
  const VIRIDIS = [
    [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
    [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37],
  ];
  const row = (width) => ((width + 7) & ~7) + 8;
  const plane = (height, width) => (height + 2) * row(width);

  let kernels, memory, floats, network, free, maps, steps, size;

  // --- memory: weights first, then the maps of one image size

  const claim = (count) => {
    const at = free;
    free += 4 * Math.ceil(count / 4);
    const missing = Math.ceil((4 * free + 64 - memory.buffer.byteLength) / PAGE);
    if (missing > 0) memory.grow(missing);
    floats = new Float32Array(memory.buffer);
    return at;
  };

  const start = async () => {
    const packed = Uint8Array.from(atob("@engine.wasm@"), (letter) => letter.charCodeAt());
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(unpacked).arrayBuffer();
    memory = new WebAssembly.Memory({ initial: 4 });
    kernels = (await WebAssembly.instantiate(bytes, { env: { memory } })).instance.exports;
  };

  // --- reading a network: safetensors, as `unet_tutorial.export.write_network` writes it

  const half = (bits) => {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    return bits >> 15 ? -size : size;
  };

  const read = (buffer) => {
    const view = new DataView(buffer);
    const length = buffer.byteLength > 8 ? Number(view.getBigUint64(0, true)) : Infinity;
    if (length > buffer.byteLength - 8) throw new Error("this is no network: not a safetensors file");
    const { __metadata__: notes, ...entries } = JSON.parse(
      new TextDecoder().decode(new Uint8Array(buffer, 8, length)),
    );
    const about = notes?.["inside-unet network 1"];
    if (!about)
      throw new Error("these are weights, but not those of a network that unet-tutorial exported");
    const tensors = {};
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(entries)) {
      const bytes = buffer.slice(8 + length + from, 8 + length + to);
      tensors[name] = {
        shape,
        data: dtype === "F16" ? Float32Array.from(new Uint16Array(bytes), half) : new Float32Array(bytes),
      };
    }
    return { about: JSON.parse(about), tensors };
  };

  // Weights of four output channels side by side, zeros where there are fewer.
  const pack = ({ shape: [outputs, inputs, taps], data }) => {
    const squared = taps * taps;
    const packed = new Float32Array(Math.ceil(outputs / 4) * 4 * inputs * squared);
    for (let o = 0; o < outputs; o++)
      for (let k = 0; k < inputs * squared; k++)
        packed[((o >> 2) * inputs * squared + k) * 4 + (o & 3)] = data[o * inputs * squared + k];
    return packed;
  };

  // Of a transposed convolution: the 2×2 of each output and input.
  const turn = ({ shape: [inputs, outputs], data }) => {
    const turned = new Float32Array(4 * inputs * outputs);
    for (let i = 0; i < inputs; i++)
      for (let o = 0; o < outputs; o++)
        turned.set(data.subarray(4 * (i * outputs + o), 4 * (i * outputs + o) + 4), 4 * (o * inputs + i));
    return turned;
  };

  // Weights as a buffer, or as its base64 text.
  function* load(weights) {
    const text = typeof weights === "string";
    const buffer = text ? Uint8Array.from(atob(weights), (c) => c.charCodeAt()).buffer : weights;
    const { about, tensors } = read(buffer);
    free = kernels.__heap_base.value / 4;
    free = 4 * Math.ceil(free / 4);
    const put = (values) => {
      const at = claim(values.length);
      floats.set(values, at);
      return at;
    };
    const layers = {};
    for (const [name, weight] of Object.entries(tensors)) {
      if (!name.endsWith(".weight")) continue;
      yield;
      const layer = name.slice(0, -7);
      const transposed = layer.endsWith(".up");
      layers[layer] = {
        weight,
        transposed,
        outputs: weight.shape[transposed ? 1 : 0],
        weights: put(transposed ? turn(weight) : pack(weight)),
        bias: put(tensors[`${layer}.bias`].data),
      };
    }
    network = { ...about, ...about.options, layers, end: free };
    size = undefined;
    return about;
  }

  // --- the plan of one image size: what is computed from what, and where it lies

  const prepare = (height, width) => {
    if (size === `${height}×${width}`) return;
    const { depth, padding, skip, upsampling, in_channels: channels, layers } = network;
    const border = padding === "same" ? 1 : 0;
    free = network.end;
    maps = {};
    steps = [];
    const note = (name, at, channels, height, width, made) =>
      (maps[name] = { name, at, channels, height, width, step: plane(height, width), ...made });
    const room = (name, channels, height, width, made) =>
      note(name, claim(channels * plane(height, width)), channels, height, width, made);

    const convolve = (name, from, key, arrow = "blue") => {
      const layer = layers[key];
      const lost = arrow === "blue" ? 2 - 2 * border : 0;
      const to = room(name, layer.outputs, from.height - lost, from.width - lost, {
        arrow, from: [from.name], layer,
      });
      const shared = [from.at * 4, from.channels, from.height, from.width];
      const given = [...shared, layer.weights * 4, layer.bias * 4, to.at * 4, to.channels];
      steps.push(() => kernels[arrow](...given, border));
      return to;
    };
    const twice = (name, from, key) =>
      convolve(name, convolve(`${name}.1`, from, `${key}.0`), `${key}.2`);

    let now = room("image", channels, height, width, { arrow: "", from: [] });
    for (let level = 1; level <= depth; level++) {
      const down = twice(`enc${level}`, now, `contracting.${level - 1}.conv.conv_block`);
      const made = { arrow: "red", from: [down.name] };
      const pool = room(`pool${level}`, down.channels, down.height / 2, down.width / 2, made);
      steps.push(() =>
        kernels.red(down.at * 4, down.channels, down.height, down.width, pool.at * 4),
      );
      now = pool;
    }
    now = twice("bottleneck", now, "bottleneck.conv_block");
    for (let level = depth; level >= 1; level--) {
      const key = `expansive.${depth - level}`;
      const below = now;
      const [tall, broad, count] = [2 * below.height, 2 * below.width, below.channels / 2];
      const joined = claim((skip === "concat" ? 2 : 1) * count * plane(tall, broad));
      const bilinear = upsampling === "bilinear";
      // A 1×1 convolution and an interpolation may change places; below there is less to do.
      const thin = bilinear ? convolve(`thin${level}`, below, `${key}.up.1`, "teal") : below;
      const layer = layers[bilinear ? `${key}.up.1` : `${key}.up`];
      const at = skip === "add" ? claim(count * plane(tall, broad)) : joined;
      const made = { arrow: "green", from: [below.name], layer };
      const up = note(`up${level}`, at, count, tall, broad, made);
      steps.push(() => {
        const given = [thin.at * 4, thin.channels, thin.height, thin.width];
        if (bilinear) kernels.stretch(...given, up.at * 4);
        else kernels.green(...given, layer.weights * 4, layer.bias * 4, up.at * 4, count);
      });
      now = up;
      if (skip !== "none") {
        const enc = maps[`enc${level}`];
        const copy = { arrow: "gray", from: [enc.name] };
        const carried = skip === "concat" ? joined + count * up.step : claim(count * up.step);
        const carry = note(`skip${level}`, carried, count, tall, broad, copy);
        steps.push((surgery) => treat(enc, carry, surgery[level] ?? {}));
        const both = { arrow: "gray", from: [up.name, carry.name] };
        const channels = skip === "concat" ? 2 * count : count;
        now = note(`join${level}`, joined, channels, tall, broad, both);
        if (skip === "add")
          steps.push(() => {
            [up, carry].forEach((part, k) =>
              kernels.gray(part.at * 4, count, tall, broad, joined * 4, tall, broad, 1, k),
            );
          });
      }
      now = twice(`dec${level}`, now, `${key}.conv.conv_block`);
    }
    convolve("out", now, "out", "teal");
    floats.fill(0, network.end, free); // the frames of all maps, once
    size = `${height}×${width}`;
  };

  // What a skip carries: its maps; less of them; their means; those of another image; nothing.
  const treat = (enc, carry, { scale = 1, from = "own" }) => {
    let source = enc;
    if (from === "other" && enc.other) {
      enc.spare ??= claim(enc.other.length);
      floats.set(enc.other, enc.spare);
      source = { ...enc, at: enc.spare };
    }
    const { at, channels, height, width } = source;
    kernels.gray(at * 4, channels, height, width, carry.at * 4, carry.height, carry.width, scale, 0);
    if (from !== "mean") return;
    for (let c = 0; c < carry.channels; c++) {
      const values = plainMap(carry, c);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      eachRow(carry, c, (start) => floats.fill(mean, start, start + carry.width));
    }
  };

  const eachRow = (map, channel, act) => {
    for (let y = 0; y < map.height; y++)
      act(map.at + channel * map.step + (y + 1) * row(map.width) + 4, y);
  };

  // One map as plain numbers, row by row.
  const plainMap = (map, channel) => {
    const values = new Float32Array(map.height * map.width);
    eachRow(map, channel, (start, y) =>
      values.set(floats.subarray(start, start + map.width), y * map.width),
    );
    return values;
  };

  // --- running

  // Step by step, so that a page without a worker stays awake.
  function* forward({ image, height, width, skips = {} }) {
    prepare(height, width);
    const given = maps.image;
    for (let c = 0; c < given.channels; c++)
      eachRow(given, c, (start, y) => {
        const from = (c * height + y) * width;
        floats.set(image.subarray(from, from + width), start);
      });
    for (const step of steps) {
      step(skips);
      yield;
    }
  }

  // Keep the maps that the skips of this image carry, to hand them to another one.
  const keep = () => {
    for (const map of Object.values(maps))
      if (/^enc\d+$/.test(map.name))
        map.other = floats.slice(map.at, map.at + map.channels * map.step);
  };

  // Class probabilities (softmax) and the most probable class.
  const answer = () => {
    const { channels, height, width } = maps.out;
    const count = height * width;
    const logits = Array.from({ length: channels }, (_, c) => plainMap(maps.out, c));
    const probabilities = new Float32Array(channels * count);
    const classes = new Uint8Array(count);
    for (let k = 0; k < count; k++) {
      let best = 0;
      for (let c = 1; c < channels; c++) if (logits[c][k] > logits[best][k]) best = c;
      let total = 0;
      for (let c = 0; c < channels; c++)
        total += probabilities[c * count + k] = Math.exp(logits[c][k] - logits[best][k]);
      for (let c = 0; c < channels; c++) probabilities[c * count + k] /= total;
      classes[k] = best;
    }
    return { probabilities, classes, height, width, channels };
  };

  // --- pictures of maps: all channels of a stage side by side, each in viridis over its own range

  const COLORS = Uint32Array.from({ length: 256 }, (_, k) => {
    const place = (k / 255) * (VIRIDIS.length - 1);
    const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
    const [red, green, blue] = VIRIDIS[low].map((value, c) =>
      Math.round(value + (place - low) * (VIRIDIS[low + 1][c] - value)),
    );
    return (255 << 24) | (blue << 16) | (green << 8) | red;
  });

  const range = (map, channel) => {
    let [low, high] = [Infinity, -Infinity];
    eachRow(map, channel, (start) => {
      for (let k = start; k < start + map.width; k++) {
        const value = floats[k];
        if (value < low) low = value;
        if (value > high) high = value;
      }
    });
    return [low, high];
  };

  // Every second, third ... pixel is drawn, so that a sheet is not wider than `side`.
  const sheet = (name, side) => {
    const map = maps[name];
    const columns = Math.min(map.channels, 2 ** Math.ceil(Math.log2(map.channels * 2) / 2));
    const every = Math.max(1, Math.ceil((Math.max(map.height, map.width) * columns) / side));
    const [tall, broad] = [Math.ceil(map.height / every), Math.ceil(map.width / every)];
    const rows = Math.ceil(map.channels / columns);
    const width = columns * broad;
    const colors = new Uint32Array(rows * tall * width);
    for (let c = 0; c < map.channels; c++) {
      const [low, high] = range(map, c);
      const scale = high > low ? 255 / (high - low) : 0;
      const corner = Math.floor(c / columns) * tall * width + (c % columns) * broad;
      eachRow(map, c, (start, y) => {
        if (y % every) return;
        const to = corner + (y / every) * width;
        for (let x = 0; x < broad; x++)
          colors[to + x] = COLORS[(scale * (floats[start + x * every] - low)) | 0];
      });
    }
    const pixels = new Uint8ClampedArray(colors.buffer);
    const { channels, height } = map;
    return { name, channels, size: [height, map.width], columns, rows, tile: [tall, broad], pixels };
  };

  // The channels that a map is made of, and the part of each: the sum of its weights' sizes times
  // the mean size of its values.
  const sources = (map, channel) => {
    if (!map.layer) return map.from.map((name) => ({ name, channel }));
    const { weight: { shape, data }, transposed } = map.layer;
    const [from] = map.from.map((name) => maps[name]);
    const taps = shape[2] * shape[3];
    const parts = Array.from({ length: from.channels }, (_, i) => {
      const first = (transposed ? i * shape[1] + channel : channel * shape[1] + i) * taps;
      const weights = data.subarray(first, first + taps).reduce((sum, w) => sum + Math.abs(w), 0);
      const values = plainMap(from, i);
      return (weights * values.reduce((sum, value) => sum + Math.abs(value), 0)) / values.length;
    });
    const total = parts.reduce((sum, part) => sum + part, 0) || 1;
    return parts
      .map((part, i) => ({ name: from.name, channel: i, share: part / total }))
      .sort((a, b) => b.share - a.share)
      .slice(0, 3);
  };

  const look = ({ name, channel, bare }) => {
    const map = maps[name];
    const values = plainMap(map, channel);
    return {
      values, range: range(map, channel), height: map.height, width: map.width,
      arrow: map.arrow, from: map.from,
      sources: bare ? [] : sources(map, channel),
    };
  };

  // The values of all channels at one place of each stage.
  const at = (units) =>
    Object.entries(units).map(([name, [y, x]]) => {
      const map = maps[name];
      const offset = map.at + (y + 1) * row(map.width) + 4 + x;
      return Float32Array.from({ length: map.channels }, (_, c) => floats[offset + c * map.step]);
    });

  // --- what a page asks for; each takes and gives plain objects and typed arrays

  const calls = {
    start,
    load,
    list: () => Object.values(maps).map(({ name, channels, height, width }) => ({ name, channels, height, width })),
    look,
    *run(given) {
      const began = performance.now();
      yield* forward(given);
      const milliseconds = performance.now() - began;
      if (given.keep) keep();
      const result = { ...answer(), milliseconds, sheets: [] };
      for (const name of given.sheets ?? []) {
        if (maps[name]) result.sheets.push(sheet(name, given.side ?? 256));
        yield;
      }
      if (given.open && maps[given.open.name]) result.open = look(given.open);
      return result;
    },
    *probe({ units, ...given }) {
      yield* forward(given);
      return at(units);
    },
  };

  // `pause` is called between steps; a worker needs none.
  const call = async (name, given, pause) => {
    const result = calls[name](given);
    if (typeof result?.next !== "function") return result;
    for (;;) {
      const { done, value } = result.next();
      if (done) return value;
      await pause?.();
    }
  };
  return call;
};

// The worker: one answer for each question, in their order.
UNetBook.work = (scope, call) => {
  let last = Promise.resolve();
  scope.onmessage = ({ data: { id, name, given } }) => {
    last = last.then(async () => {
      try {
        scope.postMessage({ id, value: await call(name, given) });
      } catch (error) {
        scope.postMessage({ id, error: error.message });
      }
    });
  };
};
