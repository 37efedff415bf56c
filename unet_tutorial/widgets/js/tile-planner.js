// The tiles in which an image is predicted: unet_tutorial.inference.tile_plan, drawn to scale.
// Words and drawing come from Python; the values in them are computed here.

{
  // For rows and columns what each tile reads and answers for; or the nearest sides that work.
  UNetBook.tilePlan = (size, depth, padding, tile, border) => {
    const cell = 2 ** depth;
    const margin = padding === "same" ? 0 : border;
    const fits = (length) => UNetBook.fits(length, depth, padding);
    const floor = (length) => length - (length % cell);
    const search = (side, step) => {
      while (side && !(fits(side) && floor(side - 2 * border) > 0)) side += step;
      return side;
    };
    const near = [-1, 1].map((step) => search(tile, step));
    if (near[0] !== near[1]) return { near };
    const axes = size.map((image) => {
      let length = image + 2 * margin;
      while (!fits(length)) length++;
      const before = (length - image) >> 1;
      const side = Math.min(tile, length);
      const last = length - side;
      const lost = last ? border : margin;
      const kept = side - 2 * lost;
      const spans = [];
      for (let start = 0, done = 0; done < image; start += floor(kept)) {
        const from = Math.min(start, last) - before;
        const stop = Math.min(from + side - (start < last ? border : margin), image);
        // Else the tile would answer for mirrored pixels only.
        if (stop > done) spans.push([[from, from + side], [done, (done = stop)]]);
      }
      return { image, side, lost, kept, before, after: length - image - before, spans };
    });
    return { axes };
  };

  UNetBook.register("tile-planner", (model, el) => {
    const { html, put, number, slider, choice, button, format } = UNetBook;
    const get = (name) => model.get(name);
    const texts = get("texts");
    const names = ["height", "width", "tile", "padding", "depth"];
    const controls = names.map((name, k) =>
      [number, number, number, choice, slider][k](name, {
        min: 1,
        max: texts.most[k],
        options: texts.paddings,
        change: (value) => put(model, name, value),
      }),
    );
    let axes, at, tiles, across;
    const go = (to) => () => axes && put(model, "index", (at + to + tiles) % tiles);
    const where = html("output");
    const shown = html("div", {
      onclick: ({ clientX, clientY }) => {
        const box = shown.querySelector("rect").getBoundingClientRect();
        const [row, column] = [(clientY - box.y) / box.height, (clientX - box.x) / box.width].map(
          (part, k) => axes[k].spans.slice(1).filter(([, [start]]) => start <= part * axes[k].image).length,
        );
        put(model, "index", row * across + column);
      },
    });
    const spoken = UNetBook.speaker();

    const draw = () => {
      const values = { cell: 2 ** get("depth") };
      names.forEach((name, k) => controls[k].set((values[name] = get(name))));
      const { height, width, tile, padding, depth, cell } = values;
      values.border = texts.borders[padding][depth - 1];
      const plan = UNetBook.tilePlan([height, width], depth, padding, tile, values.border);
      const say = (name) => format(texts[name], values);
      axes = plan.axes;
      where.textContent = "";
      if (!axes) {
        [values.smaller, values.larger] = plan.near;
        shown.innerHTML = `<p class="unet-verdict">${say(values.smaller ? "error" : "small")}</p>`;
        return spoken.say(shown.textContent);
      }
      const [rows, columns] = axes;
      across = columns.spans.length;
      tiles = rows.spans.length * across;
      at = Math.min(get("index"), tiles - 1);
      where.textContent = `${at + 1} of ${tiles}`;
      const spans = [rows.spans[Math.floor(at / across)], columns.spans[at % across]];
      const box = ([y, x]) => `x="${x[0]}" y="${y[0]}" width="${x[1] - x[0]}" height="${y[1] - y[0]}"`;
      const place = ([y, x]) => `rows ${y.join(" to ")}, columns ${x.join(" to ")}`;
      const by = (each) => axes.map(each).join("×");
      const { side, lost, kept } = rows.spans[1] || !columns.spans[1] ? rows : columns;
      const stride = kept - (kept % cell);
      const [input, output] = [0, 1].map((k) => spans.map((span) => span[k]));
      const cuts = axes.map(({ spans }, k) =>
        spans.slice(1).map(([, [at]]) => (k ? `M${at} 0V${height}` : `M0 ${at}H${width}`)).join(""),
      );
      const stages = UNetBook.trace({ ...texts.options, depth, padding }, rows.side, columns.side);
      Object.assign(values, {
        side, lost, kept, stride, tiles,
        twice: 2 * lost,
        step: tiles > 1 ? `${stride} = ${stride / cell}·${cell}` : "–",
        sides: by(({ side }) => side),
        all: by(({ kept }) => kept),
        mirrored: by(({ before, after }) => `(${before} + ${after})`),
        grid: by(({ spans }) => spans.length),
        read: ((tiles * rows.side * columns.side) / height / width).toFixed(2),
        last: by(({ spans, image }) => image - spans[spans.length - 1][1][0]),
        maps: (stages.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(1),
        input: place(input),
        output: place(output),
        view: [columns, rows].map(({ before }) => -before).join(" ") + " " +
          [columns, rows].map(({ before, image, after }) => before + image + after).join(" "),
        cuts: rows.spans.length + across > texts.lines ? "" : cuts.join(""),
        inside: box(output),
        around: box(input),
      });
      values.label = say("label");
      values.reason = say(tiles < 2 ? "one" : kept === stride ? "even" : "odd") + (lost ? say(padding) : "");
      shown.innerHTML = say("page");
      spoken.say(values.label);
    };
    el.append(
      html("div", { class: "unet-controls" }, controls, html("div", { class: "unet-control" }, button("previous", go(-1)), button("next", go(1)), where)),
      shown,
      spoken,
    );
    draw();
    return UNetBook.follow(model, [...names, "index"], UNetBook.onFrame(draw));
  });
}
