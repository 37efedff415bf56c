// The shapes of a U-Net, stage by stage, as unet_tutorial.shapes.trace_shapes finds them in the
// real modules. The tests compare the two on thousands of configurations.

const double = (channels, out, { height, width, padding, norm }) => {
  const layers = [];
  let [rows, columns] = [height, width];
  for (const into of [channels, out]) {
    const lost = padding === "same" ? 0 : 2;
    rows -= lost;
    columns -= lost;
    const size = out * rows * columns;
    layers.push({
      kind: "convolution",
      kernel: 3,
      stride: 1,
      border: padding === "same" ? 1 : 0,
      output: [out, rows, columns],
      parameters: into * out * 9 + (norm ? 0 : out),
      multiplyAdds: size * into * 9,
      bytes: 4 * size,
    });
    // ReLU writes into its input; batch normalization makes a new map.
    if (norm) layers.push({ kind: "norm", kernel: 1, stride: 1, border: 0, output: [out, rows, columns], parameters: 2 * out, multiplyAdds: 0, bytes: 4 * size });
  }
  return layers;
};

const stage = (name, operation, input, layers, code, crop = [0, 0]) => {
  const sum = (key) => layers.reduce((total, layer) => total + layer[key], 0);
  return {
    name,
    operation,
    input,
    output: layers[layers.length - 1].output,
    layers,
    crop,
    code,
    parameters: sum("parameters"),
    multiplyAdds: sum("multiplyAdds"),
    bytes: sum("bytes"),
  };
};

// Every stage of the network for an image of this size. Where the size does not fit (checkSize
// says so) poolings drop a row, as PyTorch's do, and `repair` resizes what comes up to its skip.
UNetBook.trace = (options, imageHeight, imageWidth, repair = false) => {
  const { in_channels, num_classes, base_channels, depth, padding, norm, upsampling, skip } = options;
  const stages = [];
  const kept = [];
  let [channels, height, width] = [in_channels, imageHeight, imageWidth];
  const advance = (next) => {
    stages.push(next);
    [channels, height, width] = next.output;
  };
  const shape = () => [channels, height, width];
  const extra = () => ({ height, width, padding, norm });
  const more = (padding === "valid" ? ', padding="valid"' : "") + (norm ? ', norm="batch"' : "");
  for (let level = 1; level <= depth; level++) {
    const out = base_channels * 2 ** (level - 1);
    const code = `DownSampling(${channels}, ${out}${more})`;
    advance(stage(`enc${level}`, "two 3×3 convolutions", shape(), double(channels, out, extra()), code));
    kept.push(shape());
    const output = [channels, Math.floor(height / 2), Math.floor(width / 2)];
    const bytes = 4 * output[0] * output[1] * output[2];
    const pool = { kind: "pool", kernel: 2, stride: 2, border: 0, output, parameters: 0, multiplyAdds: 0, bytes };
    advance(stage(`pool${level}`, "2×2 max pooling", shape(), [pool], code));
  }
  const deepest = base_channels * 2 ** depth;
  const bottom = `DoubleConvolution(${channels}, ${deepest}${more})`;
  advance(stage("bottleneck", "two 3×3 convolutions", shape(), double(channels, deepest, extra()), bottom));
  for (let level = depth; level >= 1; level--) {
    const half = channels / 2;
    const [rows, columns] = [2 * height, 2 * width];
    const choices = more + (upsampling === "bilinear" ? ', upsampling="bilinear"' : "") + (skip === "concat" ? "" : `, skip="${skip}"`);
    const code = `UpSampling(${channels}, ${half}${choices})`;
    const large = half * rows * columns;
    if (upsampling === "transposed") {
      const up = { kind: "up", kernel: 2, stride: 2, border: 0, output: [half, rows, columns], parameters: channels * half * 4 + half, multiplyAdds: channels * height * width * half * 4, bytes: 4 * large };
      advance(stage(`up${level}`, "2×2 up-convolution", shape(), [up], code));
    } else {
      const wide = { kind: "bilinear", kernel: 1, stride: 2, border: 0, output: [channels, rows, columns], parameters: 0, multiplyAdds: 0, bytes: 4 * channels * rows * columns };
      const halve = { kind: "convolution", kernel: 1, stride: 1, border: 0, output: [half, rows, columns], parameters: channels * half + half, multiplyAdds: large * channels, bytes: 4 * large };
      advance(stage(`up${level}`, "bilinear ×2, 1×1 convolution", shape(), [wide, halve], code));
    }
    const carried = kept[level - 1];
    if (repair) [height, width] = carried.slice(1);
    if (skip !== "none") {
      const border = (axis, side) => (padding === "valid" ? (carried[axis] - side) / 2 : 0);
      const crop = [border(1, height), border(2, width)];
      const output = [skip === "concat" ? 2 * half : half, height, width];
      const copy = { kind: "copy", kernel: 1, stride: 1, border: 0, output, parameters: 0, multiplyAdds: 0, bytes: 4 * output[0] * height * width };
      const verb = crop[0] === 0 && crop[1] === 0 ? "copy" : "crop";
      const join = skip === "concat" ? "torch.cat((x, x2), dim=1)" : "x + x2";
      advance(stage(`skip${level}`, `${verb} and ${skip === "concat" ? "concatenate" : "add"}`, carried, [copy], join, crop));
    }
    advance(stage(`dec${level}`, "two 3×3 convolutions", shape(), double(channels, half, extra()), code));
  }
  const size = num_classes * height * width;
  const last = { kind: "convolution", kernel: 1, stride: 1, border: 0, output: [num_classes, height, width], parameters: channels * num_classes + num_classes, multiplyAdds: size * channels, bytes: 4 * size };
  advance(stage("out", "1×1 convolution", shape(), [last], `nn.Conv2d(${channels}, ${num_classes}, kernel_size=1)`));
  return stages;
};

// --- which sizes fit: unet_tutorial.unet.check_size, sentence by sentence

const walk = (length, depth, padding) => {
  const lost = padding === "same" ? 0 : 4; // what a double convolution takes
  const steps = [];
  for (let level = 1; level <= depth; level++) {
    steps.push([`enc${level}`, length]);
    if (length - lost < 1) return steps;
    steps.push([`pool${level}`, length - lost]);
    if ((length - lost) % 2) return steps;
    length = (length - lost) / 2;
  }
  steps.push(["bottleneck", length]);
  for (let level = depth; level >= 1; level--) {
    if (length - lost < 1) return steps;
    length = 2 * (length - lost);
    steps.push([`dec${level}`, length]);
  }
  if (length - lost < 1) return steps;
  return [...steps, ["fits", length - lost]];
};

const end = (steps) => steps[steps.length - 1];

UNetBook.fits = (length, depth, padding) => end(walk(length, depth, padding))[0] === "fits";

UNetBook.checkSize = (height, width, depth, padding) => {
  const rows = walk(height, depth, padding);
  const columns = walk(width, depth, padding);
  const done = (steps) => end(steps)[0] === "fits";
  if (done(rows) && done(columns)) return { fits: true, output: [end(rows)[1], end(columns)[1]] };
  // The axis that gets less far fails first.
  let failed = rows;
  if (done(rows) || (!done(columns) && columns.length < rows.length)) failed = columns;
  const [name, length] = end(failed);
  const at = [rows, columns].map((steps) => steps.find(([step]) => step === name)[1]).join("x");
  let reason = `two unpadded convolutions would leave nothing of the ${at} map in ${name}`;
  if (name.startsWith("pool")) reason = `${name} would halve ${at}, and ${length} is odd`;
  else if (padding === "same") reason = "it has no pixels";
  const search = (start, step) => {
    let found = start;
    while (found > 0 && !UNetBook.fits(found, depth, padding)) found += step;
    return Math.max(found, 0);
  };
  const smaller = [search(height, -1), search(width, -1)];
  const larger = [search(Math.max(height, 1), 1), search(Math.max(width, 1), 1)];
  const nearest = smaller[0] && smaller[1] ? [smaller, larger] : [larger];
  const sizes = nearest.map((size) => size.join("x")).join(", ");
  const message = `a ${height}x${width} image does not fit this network (depth ${depth}, padding '${padding}'): ${reason}. Nearest sizes that fit: ${sizes}.`;
  return { fits: false, stage: name, message, nearest };
};

// What PyTorch itself would say of a padded network that does not ask: poolings drop a row
// wherever they meet an odd size, and the first joint whose sides differ stops the run.
UNetBook.torchVerdict = (height, width, depth) => {
  const sizes = [[height, width]];
  for (let level = 1; level <= depth; level++) {
    const [rows, columns] = sizes[level - 1];
    const halved = [Math.floor(rows / 2), Math.floor(columns / 2)];
    if (!halved[0] || !halved[1]) return { joint: `pool${level}`, message: "the pooled map would be empty", sizes };
    sizes.push(halved);
  }
  let up = sizes[depth];
  for (let level = depth; level >= 1; level--) {
    up = [2 * up[0], 2 * up[1]];
    const skip = sizes[level - 1];
    for (const axis of [0, 1]) {
      if (up[axis] === skip[axis]) continue;
      const message = `Sizes of tensors must match except in dimension 1. Expected size ${up[axis]} but got size ${skip[axis]} for tensor number 1 in the list.`;
      return { joint: `skip${level}`, message, up, skip, sizes };
    }
  }
  return { joint: "", message: "", sizes };
};

// --- receptive fields: unet_tutorial.shapes.receptive_field

const before = ({ kind, kernel, stride, border }, [first, last]) => {
  if (kind === "up") return [-Math.floor((kernel - 1 - first) / stride), Math.floor(last / stride)];
  if (kind === "bilinear")
    return [
      Math.floor((2 * first + 1 - stride) / (2 * stride)),
      Math.floor((2 * last + 1 - stride) / (2 * stride)) + 1,
    ];
  return [first * stride - border, last * stride - border + kernel - 1];
};

// Rows of the image (not cut at its border) on which these rows of a stage's map depend.
UNetBook.field = (stages, name, span, axis = 0) => {
  for (let index = stages.findIndex((other) => other.name === name); index >= 0; index--) {
    const here = stages[index];
    if (here.name.startsWith("skip")) {
      const level = here.name.slice(4);
      const across = span.map((place) => place + here.crop[axis]);
      const carried = UNetBook.field(stages, `enc${level}`, across, axis);
      const below = UNetBook.field(stages, `up${level}`, span, axis);
      return [Math.min(carried[0], below[0]), Math.max(carried[1], below[1])];
    }
    for (const layer of [...here.layers].reverse()) span = before(layer, span);
  }
  return span;
};

// The widest field of a stage: it depends on where in the pooling grid a value lies.
UNetBook.widestField = (stages, name) => {
  const period = 2 ** stages.filter((other) => other.name.startsWith("pool")).length;
  let widest = 0;
  for (let row = 0; row < period; row++) {
    const [first, last] = UNetBook.field(stages, name, [row, row]);
    widest = Math.max(widest, last - first + 1);
  }
  return widest;
};
