// Two cells, one of them to move, and how much each pixel counts: the paper's weight map, computed
// here as unet_tutorial.losses.border_weight_map does.

{
  const { html, svg, put } = UNetBook;
  const { abs, exp, floor, max, min, round, sqrt } = Math;
  const [HEIGHT, WIDTH] = [64, 96];
  const KEYS = ["gap", "shift", "w0", "sigma", "balanced"];
  const LIMITS = [[1, 30], [-18, 18], [0, 20, 0.5], [1, 15, 0.5]];
  // Row, column and radius of both cells.
  const cellsOf = ({ gap, shift }) => [[32, 22, 16], [32 + shift, 51 + gap, 12]];

  // The exact distance of each pixel to a disc: the smallest of those to the disc's rows.
  const distance = ([row, column, radius]) => {
    const squares = new Float64Array(HEIGHT * WIDTH).fill(Infinity);
    for (let k = -radius; k <= radius; k++) {
      const half = floor(sqrt(radius * (radius + 1) - k * k));
      for (let y = 0, i = 0; y < HEIGHT; y++)
        for (let x = 0; x < WIDTH; x++, i++) {
          const far = max(abs(x - column) - half, 0);
          squares[i] = min(squares[i], (y - row - k) ** 2 + far * far);
        }
    }
    return squares.map(sqrt);
  };

  const one = distance(cellsOf({})[0]); // this cell stays

  // d1 + d2 of each pixel, 0 inside the cells; of those outside the number, and the least sum.
  const measure = (state) => {
    const two = distance(cellsOf(state)[1]);
    const sums = one.map((d, i) => d && two[i] && d + two[i]);
    const free = sums.filter(Boolean);
    return [sums, free.length, min(...free)];
  };

  UNetBook.borderWeights = (state) => {
    const { w0, sigma, balanced } = state;
    const bell = (d) => exp(-((d / sigma) ** 2) / 2);
    const term = (d) => (bell(d) < 1e-6 ? 0 : w0 * bell(d)); // as in Python
    const [sums, empty, least] = measure(state);
    const next = measure({ ...state, gap: state.gap + 1 })[2];
    const half = sums.length / 2;
    const [plain, cell] = balanced ? [half / empty, half / (2 * half - empty)] : [1, 1];
    const weights = sums.map((d) => (d ? plain + term(d) : cell));
    const heavy = weights.filter((w, i) => sums[i] && w > 2 * plain);
    const worth = heavy.reduce((total, w) => total + w, 0) / cell;
    const falls = 100 * (1 - bell(sqrt(next * next - least * least)));
    const words =
      `Largest weight in the gap: ${(plain + term(least)).toFixed(2)}. ${heavy.length} pixels ` +
      `weigh more than twice their class weight of ${plain.toFixed(2)}, together as much as ` +
      `${worth.toFixed(0)} pixels of cell. One pixel more between the cells lowers the border ` +
      `term by ${falls.toFixed(0)} %.`;
    return { weights, top: max(plain, cell) + w0, words };
  };

  UNetBook.register("border-weight-lab", (model, el) => {
    const sliders = ["gap", "shift down", "w₀", "σ"].map((label, k) => {
      const [min, max, step] = LIMITS[k];
      return UNetBook.slider(label, { min, max, step, change: (n) => put(model, KEYS[k], n) });
    });
    const balance = UNetBook.button("balanced class weights", () =>
      put(model, "balanced", !model.get("balanced")),
    );

    // The map, two empty rows, and three with the scale of its colors.
    const canvas = html("canvas", { width: WIDTH, height: 69 });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(WIDTH, 69);
    const { data } = pixels;

    let from;
    const place = ({ clientX, clientY }) =>
      [clientX, clientY].map((at) => (at * WIDTH) / picture.clientWidth);
    const white = { fill: "#0000", stroke: "#fff", style: "filter:drop-shadow(0 0 .4px #000)" };
    const rings = [
      svg("circle", white),
      svg("circle", {
        ...white,
        "stroke-dasharray": 2,
        style: `${white.style};cursor:move`,
        // Chromium knows touch-action only of a whole drawing.
        ontouchstart: (event) => event.preventDefault(),
        onpointerdown: (event) => {
          from = place(event).map((at, k) => model.get(KEYS[k]) - at);
          rings[1].setPointerCapture(event.pointerId);
        },
        onpointermove: (event) =>
          from && place(event).forEach((at, k) => {
            const [least, most] = LIMITS[k];
            put(model, KEYS[k], min(max(round(at + from[k]), least), most));
          }),
        onlostpointercapture: () => (from = 0),
      }),
    ];
    const image = svg("image", { x: -0.5, y: -0.5, style: "image-rendering:pixelated" });
    const line = svg("path", { ...white, "stroke-width": 0.5 });
    const curve = svg("path", { fill: "none", stroke: "currentColor", "stroke-width": 0.5 });
    const picture = svg(
      "svg",
      { role: "img", viewBox: "-.5 -.5 96 100", style: "width:30rem" },
      [image, line, rings, curve],
    );
    const [note, spoken] = [html("p"), UNetBook.speaker()];

    const draw = () => {
      const state = Object.fromEntries(KEYS.map((name) => [name, model.get(name)]));
      const { weights, top, words } = UNetBook.borderWeights(state);
      const paint = (part, i) => {
        [data[4 * i], data[4 * i + 1], data[4 * i + 2]] = UNetBook.viridis(part);
        data[4 * i + 3] = 255;
      };
      weights.forEach((weight, i) => paint(weight / top, i));
      for (let i = 0; i < 3 * WIDTH; i++) paint((i % WIDTH) / WIDTH, i + 66 * WIDTH);
      context.putImageData(pixels, 0, 0);
      image.setAttribute("href", canvas.toDataURL());
      const cells = cellsOf(state);
      cells.forEach((cell, k) =>
        ["cy", "cx", "r"].forEach((name, j) => rings[k].setAttribute(name, cell[j])),
      );
      const [[row, first], [end, last]] = cells;
      line.setAttribute("d", `M${first} ${row}L${last} ${end}`);
      let path = `M0 99H95M${first - 0.5} 99`;
      for (let x = first; x <= last; x++) {
        const y = row + round(((end - row) * (x - first)) / (last - first));
        path += `V${99 - (28 * weights[y * WIDTH + x]) / top}H${x + 0.5}`;
      }
      curve.setAttribute("d", `${path}V99`);
      sliders.forEach((slider, k) => slider.set(state[KEYS[k]]));
      balance.setAttribute("aria-pressed", state.balanced);
      picture.setAttribute("aria-label", words);
      note.innerText = `Colors, and curve along the line: 0 to ${top.toFixed(2)}.\n${words}`;
      spoken.say(words);
    };
    const controls = html("div", { class: "unet-controls" }, sliders, balance);
    el.append(controls, picture, note, spoken);
    draw();
    return UNetBook.follow(model, KEYS, UNetBook.onFrame(draw));
  });
}
