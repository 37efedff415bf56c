// The paper's elastic deformation, to pull at: every pixel is looked up where it comes from, as
// unet_tutorial.augmentation does it. Python has drawn the displacements of the first seeds.

{
  const clip = (value, low, high) => Math.min(Math.max(value, low), high);

  // How much each of three handles counts at each pixel of an axis: bicubic, as in PyTorch.
  const shares = (length) =>
    Array.from({ length }, (_, pixel) => {
      const at = (2 * pixel) / (length - 1);
      const of = [0, 0, 0];
      for (let k = Math.floor(at) - 1; k < at + 2; k++) {
        const x = Math.abs(at - k);
        of[clip(k, 0, 2)] += x < 1 ? (1.25 * x - 2.25) * x * x + 1 : ((3.75 - 0.75 * x) * x - 6) * x + 3;
      }
      return of;
    });

  const mirror = (place, length) => {
    const far = Math.abs(place) % (2 * length - 2);
    return Math.min(far, 2 * length - 2 - far);
  };

  // The displacement field, down and to the right; the picture (red, green, blue, opacity) and
  // the labels that are read there.
  UNetBook.bend = (handles, image, labels, [height, width]) => {
    const marks = new Uint8Array(height * width);
    const field = [0, 1].map(() => new Float64Array(marks.length));
    const picture = new Uint8ClampedArray(4 * marks.length);
    const across = shares(width);
    shares(height).forEach((down, row) => {
      const sums = [0, 1].map((axis) =>
        [0, 1, 2].map((k) => down.reduce((sum, share, j) => sum + share * handles[3 * j + k][axis], 0)),
      );
      // The inner loop makes no arrays and no functions: a frame has 16 ms.
      for (let column = 0; column < width; column++) {
        const of = across[column];
        const at = row * width + column;
        for (const axis of [0, 1])
          field[axis][at] = sums[axis][0] * of[0] + sums[axis][1] * of[1] + sums[axis][2] * of[2];
        const y = mirror(row + field[0][at], height);
        const x = mirror(column + field[1][at], width);
        const top = Math.min(Math.floor(y), height - 2);
        const left = Math.min(Math.floor(x), width - 2);
        for (let k = 0; k < 4; k++) {
          const from = 4 * (top * width + left) + k;
          const below = from + 4 * width;
          const upper = image[from] + (x - left) * (image[from + 4] - image[from]);
          const lower = image[below] + (x - left) * (image[below + 4] - image[below]);
          picture[4 * at + k] = upper + (y - top) * (lower - upper);
        }
        marks[at] = labels[Math.round(y) * width + Math.round(x)];
      }
    });
    return { field, picture, marks };
  };

  UNetBook.register("elastic-playground", (model, el) => {
    const { html, put, thousands, format } = UNetBook;
    const get = (name) => model.get(name);
    const [size, texts] = ["size", "texts"].map(get);
    const [height, width] = size;
    const around = [1, -1, width, -width];
    let image, labels, held;

    const redraw = (displacement, seed) => {
      model.set("displacement", displacement);
      model.set("seed", seed);
      put(model, "handles", get("draws")[seed].map((pair) => pair.map((value) => value * displacement)));
    };
    const slider = UNetBook.slider("standard deviation", {
      min: 0,
      max: 30,
      step: 0.5,
      show: (pixels) => `${pixels} px`,
      change: (pixels) => redraw(pixels, get("seed")),
    });
    const again = UNetBook.button("draw again", () => {
      const seeds = Object.keys(get("draws")).map(Number);
      redraw(get("displacement"), seeds[(seeds.indexOf(get("seed")) + 1) % seeds.length]);
    });
    const seed = html("output");
    const bend = html("input", { type: "checkbox", onchange: () => put(model, "bend_labels", bend.checked) });
    const check = html("label", { hidden: !texts.true }, bend, " bend the labels too");
    const place = html("div");
    place.innerHTML = texts.page;
    const [canvas, after] = ["canvas", "figcaption"].map((tag) => place.querySelector(tag));
    const [lines, dots] = ["line", "g[role]"].map((tag) => place.querySelectorAll(tag));
    const spoken = UNetBook.speaker();

    // A dot stands where its pixel goes, not where it comes from: the picture follows the hand.
    const pull = (k, move) => {
      const handles = [...get("handles")];
      handles[k] = handles[k].map((value, axis) => clip(value - move[axis], -99, 99));
      put(model, "handles", handles);
    };
    dots.forEach((dot, k) => {
      dot.onpointerdown = (event) => dot.setPointerCapture((held = event).pointerId);
      dot.onlostpointercapture = () => (held = null);
      dot.onpointermove = (event) => {
        if (!held) return;
        pull(k, ["clientY", "clientX"].map((name) => ((event[name] - held[name]) * width) / canvas.clientWidth));
        held = event;
      };
      dot.onkeydown = (event) => {
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (!step) return;
        event.preventDefault();
        pull(k, step);
      };
    });

    const draw = () => {
      const handles = get("handles");
      slider.set(get("displacement"));
      seed.textContent = `seed ${get("seed")}`;
      bend.checked = get("bend_labels");
      const values = handles.map((pair, k) => {
        const words = pair.map((value) => (value < 0 ? "" : "+") + value.toFixed(1)).join(", ");
        const [y, x] = [Math.floor(k / 3), k % 3].map((step, axis) => {
          const room = size[axis] / 14;
          return clip((step * (size[axis] - 1)) / 2 - pair[axis], -room, size[axis] + room);
        });
        dots[k].setAttribute("aria-label", `${texts.names[k]}: ${words}`);
        dots[k].setAttribute("transform", `translate(${x} ${y})`);
        lines[k].setAttribute("x2", x);
        lines[k].setAttribute("y2", y);
        return words;
      });
      if (!image) return;
      const { picture, marks } = UNetBook.bend(handles, image, labels, size);
      const shown = bend.checked ? marks : labels;
      const all = marks.length;
      let wrong = 0;
      marks.forEach((mark, at) => {
        if (labels[at] !== mark) wrong++;
        let color;
        if (shown[at] !== mark) color = mark ? 0 : 1;
        else if (mark && around.some((step) => shown[at + step] === 0)) color = 2;
        if (color >= 0) picture.set(texts.colors[color], 4 * at);
      });
      canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(picture, width), 0, 0);
      values.share = `${thousands(wrong)} of ${thousands(all)} pixels (${((100 * wrong) / all).toFixed(1)} %)`;
      values.verdict = format(texts[bend.checked] ?? "", values);
      after.innerHTML = format(texts.after, values);
      const words = `${texts.alt} ${values.verdict}`;
      canvas.setAttribute("aria-label", words);
      spoken.say(words);
    };
    const pixels = async (name) => {
      const picture = new Image();
      picture.src = get(name);
      await picture.decode();
      const pen = html("canvas", { width, height }).getContext("2d");
      pen.drawImage(picture, 0, 0);
      return pen.getImageData(0, 0, width, height).data;
    };
    Promise.all(["image", "labels"].map(pixels)).then((read) => {
      image = read[0];
      labels = read[1].filter((_, k) => k % 4 === 0);
      draw();
    });
    el.append(html("div", { class: "unet-controls" }, slider, again, seed, check), place, spoken);
    draw();
    return UNetBook.follow(model, ["handles", "seed", "displacement", "bend_labels"], UNetBook.onFrame(draw));
  });
}
