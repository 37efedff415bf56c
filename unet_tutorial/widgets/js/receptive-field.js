// Where did this value come from? The theoretical receptive field, computed here, over the
// measured one, which Python has stored for each stage and each place of a coarse grid.

{
  let masks = 0; // ids tie a mask to its picture; they are made in the page, never stored

  UNetBook.register("receptive-field", (model, el) => {
    const { html, svg, put } = UNetBook;
    const [size, grid, stages] = ["size", "grid", "stages"].map((name) => model.get(name));
    const [height, width] = size;
    const trace = UNetBook.trace(model.get("options"), height, width);
    const axes = ["row", "column"];

    // What the chosen value of a stage sees: [rows, columns], cut at the image's border.
    const look = (stage) => {
      const { at, centers, maps, sides } = model.get("measured")[stage];
      const [row, column] = axes.map((name) => model.get(name));
      const [places, center] = [at, centers].map((of) => [of[0][row], of[1][column]]);
      const side = sides[row][column];
      const cut = ([first, last], k) => [Math.max(first, 0), Math.min(last, size[k] - 1)];
      const square = center.map((c) => [c - (side - 1) / 2, c + (side - 1) / 2]).map(cut);
      const field = places.map((at, k) => UNetBook.field(trace, stage, [at, at], k)).map(cut);
      const can = field.map(([first, last]) => last - first + 1).join(" × ");
      const does = side ? `${side} × ${side}` : "none";
      return { center, field, square, can, does, map: maps[row][column] };
    };

    const frame = (stroke, dashes) =>
      svg("rect", {
        style: `fill:none;stroke:${stroke};stroke-width:2;stroke-dasharray:${dashes};
          vector-effect:non-scaling-stroke;filter:drop-shadow(0 0 1px) drop-shadow(0 0 1px)`,
      });
    const dot = (r, cy, cx) => svg("circle", { r: (r * width) / 320, cy, cx, fill: "#fff" });
    const [solid, dashed, here] = [frame("#fff", "none"), frame("#ffd166", "6 4"), dot(4)];
    const id = `unet-influence-${++masks}`;
    const pixels = { preserveAspectRatio: "none", style: "image-rendering:pixelated" };
    const influence = svg("image", pixels);
    const click = ({ clientX, clientY }) => {
      const box = picture.getBoundingClientRect();
      [(clientY - box.y) / box.height, (clientX - box.x) / box.width].forEach((part, k) => {
        const far = grid[k].map((place) => Math.abs(place - part * size[k]));
        put(model, axes[k], far.indexOf(Math.min(...far)));
      });
    };
    const picture = svg(
      "svg",
      {
        role: "img",
        viewBox: `0 0 ${width} ${height}`,
        style: "color:#000;width:26rem;overflow:visible;cursor:crosshair",
        onclick: click,
      },
      svg("image", { href: model.get("image"), width, height }),
      svg("mask", { id }, influence),
      svg("rect", { width, height, fill: "#ff8c00", opacity: 0.85, mask: `url(#${id})` }),
      ...grid[0].map((y) => grid[1].map((x) => dot(1.5, y, x))),
      [solid, dashed, here],
    );
    const fit = (element, [[top, bottom], [left, right]]) => {
      const box = { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
      for (const name in box) element.setAttribute(name, box[name]);
    };

    const sliders = axes.map((name, k) =>
      UNetBook.slider(name, {
        min: 0,
        max: grid[k].length - 1,
        value: model.get(name),
        show: (index) => grid[k][index],
        change: (index) => put(model, name, index),
      }),
    );
    const choice = UNetBook.choice("stage", {
      options: Object.fromEntries(stages.map((name) => [name, name])),
      change: (name) => put(model, "stage", name),
    });
    const numbers = html("div");
    const spoken = UNetBook.speaker();

    const draw = () => {
      const stage = model.get("stage");
      const { center, field, square, can, does, map } = look(stage);
      choice.set(stage);
      sliders.forEach((slider, k) => slider.set(model.get(axes[k])));
      influence.setAttribute("href", map);
      fit(influence, field);
      fit(solid, field);
      fit(dashed, square);
      ["cy", "cx"].forEach((name, k) => here.setAttribute(name, center[k] + 0.5));
      const place = axes.map((name, k) => `${name} ${grid[k][model.get(name)]}`).join(", ");
      const whole = `${stage} at ${place} can depend on ${can} pixels`;
      const words = `${whole}; 90 % of the measured influence within: ${does}.`;
      picture.setAttribute("aria-label", words);
      spoken.say(words);
      const rows = stages.map((name) => {
        const { can, does } = look(name);
        return [name === stage ? html("strong", {}, `${name} ◂`) : name, can, does];
      });
      rows.unshift(["stage", "can depend on", "90 % within"]);
      numbers.replaceChildren(UNetBook.table(`Fields at ${place}, in pixels`, rows));
    };

    const controls = html("div", { class: "unet-controls" }, choice, sliders);
    el.append(controls, picture, html("p", {}, model.get("legend")), numbers, spoken);
    draw();
    return UNetBook.follow(model, ["stage", ...axes], UNetBook.onFrame(draw));
  });
}
