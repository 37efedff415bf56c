// A convolution, one output at a time. What all three steppers share is made here.

{
  const { html } = UNetBook;

  // A map of this size; half a row or column is none.
  const fill = (rows, columns, value) =>
    Array.from({ length: rows }, (_, r) => Array.from({ length: columns }, (_, c) => value(r, c)));

  const decimal = (value) => String(Number(value.toFixed(2)) || 0).replace("-", "−");

  const at = (row, column) => `row ${row}, column ${column}`;

  // A frame of 2 pixels around each place of a square.
  const square = (top, left, side) => (r, c) =>
    2 * (r >= top && r < top + side && c >= left && c < left + side);

  // Colors from 0 to the largest of these numbers, or signed about 0.
  const scale = (...maps) => {
    const values = maps.flat(2);
    const most = Math.max(...values.map(Math.abs)) || 1;
    const colors = Math.min(...values) < 0 ? UNetBook.signed : UNetBook.viridis;
    return (value) => colors(value / most);
  };

  // Black or white, what stands out more.
  const ink = ([r, g, b]) =>
    0.213 * r ** 2.2 + 0.715 * g ** 2.2 + 0.072 * b ** 2.2 < 35e3 ? "#fff" : "#000";

  // look(get, walk): grids and a sentence. walk(map): row and column of our place in the map.
  // Of a grid, `pick` cells in a row belong to a place; `fills`: places to come are empty.
  const stepper = ({ place, look, act }) => (model, el) => {
    const get = (name) => model.get(name);
    const put = (name, value) => UNetBook.put(model, name, value);
    let [rows, columns, timer] = [1, 1, 0];
    const now = () => Math.min(get("position"), rows * columns - 1);
    const split = (k) => [Math.floor(k / columns), k % columns];
    const walk = (map) => {
      [rows, columns] = [map.length, map[0].length];
      return split(now());
    };
    const go = (k) => k >= 0 && k < rows * columns && put("position", k);
    const next = () => go((now() + 1) % (rows * columns));
    const calm = UNetBook.calm();
    const play = UNetBook.button(calm ? "next" : "play", () => {
      if (calm) return next();
      timer = timer ? clearInterval(timer) : setInterval(next, 400);
      play.textContent = timer ? "pause" : "play";
    });
    const show = (k) => at(...split(k));
    const slider = UNetBook.slider(place, { min: 0, show, change: go });
    const names = Object.keys(get("choices"));
    const selects = names.map((name) => {
      const values = get("choices")[name];
      const options = Object.fromEntries(values.map((value) => [value, value]));
      const change = (text) => put(name, values.find((value) => `${value}` === text));
      return UNetBook.choice(name, { options, change });
    });
    const change = () => put("values", act(get("values"), ...split(now())));
    const onkeydown = (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
      if (!steps[event.key]) return;
      event.preventDefault();
      go(now() + steps[event.key]);
    };
    const grids = html("div", {
      class: "unet-cells",
      tabindex: 0,
      role: "group",
      "aria-label": `${place}: arrow keys choose`,
      onkeydown,
    });
    const [sentence, spoken] = [html("p"), UNetBook.speaker()];

    // A step changes a few cells. Their table stays while its map has the same name and size.
    const tables = {};
    const grid = ({ name, values, color, pick, fills, frame }) => {
      const title = `${name} ${values.length}×${values[0].length}`;
      const place = (r, c) => Math.floor(r / pick) * columns + Math.floor(c / pick);
      const cell = (r, c) => html("td", { onclick: () => c < pick * columns && go(place(r, c)) });
      const lines = () => values.map((line, r) => html("tr", {}, line.map((_, c) => cell(r, c))));
      tables[title] ??= html("table", {}, html("caption", {}, title), html("tbody", {}, lines()));
      const show = (cell, value, r, c) => {
        const k = place(r, c);
        const text = fills && k > now() ? "" : decimal(value);
        const edge = frame?.(r, c) ?? 2 * (pick && k === now());
        const paint = color(value);
        const colors = text && `background:${UNetBook.rgb(paint)};color:${ink(paint)}`;
        const style = `outline:${edge || 0}px solid;${colors}`;
        UNetBook.renew(cell, "textContent", text);
        if (cell.getAttribute("style") !== style) cell.setAttribute("style", style);
      };
      [...tables[title].rows].forEach(({ cells }, r) =>
        values[r].forEach((value, c) => show(cells[c], value, r, c)),
      );
      return tables[title];
    };

    const draw = () => {
      const [shown, text] = look(get, walk);
      const drawn = shown.map(grid);
      if (drawn.some((table, k) => table !== grids.children[k])) grids.replaceChildren(...drawn);
      selects.forEach((select, k) => select.set(get(names[k])));
      slider.input.max = rows * columns - 1;
      slider.set(now());
      slider.input.setAttribute("aria-valuetext", show(now()));
      spoken.say((sentence.textContent = `${place} at ${show(now())}: ${text}`));
    };
    const more = act && UNetBook.button("move the winner", change);
    const controls = html("div", { class: "unet-controls" }, selects, play, slider, more);
    el.append(controls, grids, sentence, spoken);
    draw();
    const end = UNetBook.follow(model, ["position", "values", ...names], UNetBook.onFrame(draw));
    return () => {
      clearInterval(timer);
      end();
    };
  };

  // As torch.nn.functional.conv2d, with padding=1 for "same"; and what each output sums up.
  const convolve = (image, weights, padding, stride) => {
    const ring = padding === "same" ? 1 : 0;
    const [high, wide] = [image.length + 2 * ring, image[0].length + 2 * ring];
    const padded = fill(high, wide, (r, c) => image[r - ring]?.[c - ring] ?? 0);
    const pairs = (r, c) =>
      fill(3, 3, (i, j) => [padded[r * stride + i][c * stride + j], weights[i][j]]).flat();
    const sum = (r, c) => pairs(r, c).reduce((total, [x, w]) => total + x * w, 0);
    const output = fill((high - 3) / stride + 1, (wide - 3) / stride + 1, sum);
    return { padded, pairs, output };
  };

  const look = (get, walk) => {
    const [image, padding, stride] = ["image", "padding", "stride"].map(get);
    const weights = get("weights")[get("kernel")];
    const { padded, pairs, output } = convolve(image, weights, padding, stride);
    const [row, column] = walk(output);
    const name = padding === "same" ? "image in a ring of zeros" : "image";
    const factor = (w) => (w < 0 ? `(${decimal(w)})` : decimal(w));
    const products = pairs(row, column).map(([x, w]) => `${decimal(x)}·${factor(w)}`);
    const frame = square(row * stride, column * stride, 3);
    const shown = [
      { name, values: padded, color: scale(image), frame },
      { name: "kernel", values: weights, color: scale(weights) },
      { name: "output", values: output, color: scale(output), pick: 1, fills: true },
    ];
    return [shown, `${products.join(" + ")} = ${decimal(output[row][column])}`];
  };

  UNetBook.register("convolution-stepper", stepper({ place: "output", look }));
  Object.assign(UNetBook, { fill, decimal, at, square, scale, stepper, convolve });
}
