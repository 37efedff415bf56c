// Where did this pixel come from? Patch by patch is covered, and the network runs: what moves at
// one place, in every stage, beside the theoretical field.

UNetBook.register("pixel-origin", (model, el) => {
  const { html, put, choice, slider, follow } = UNetBook;
  const { abs, ceil, floor, hypot, max, min, round } = Math;
  const host = UNetBook.live(model);
  const spoken = UNetBook.speaker();
  const get = (name) => model.get(name);
  const [size, stages, head] = ["size", "stages", "head"].map(get);
  const [height, width] = size;
  const axes = ["row", "column"];

  // In each axis: the place of a stage's map that lies over the pixel, its middle in the image,
  // first and last row of the field, cut at the image's border, and their number.
  const look = ({ step, offsets, places, spans }) =>
    axes.map((axis, k) => {
      const clamp = (value, length) => min(max(value, 0), length - 1);
      const at = clamp(round((get(axis) - offsets[k]) / step), places[k]);
      const [first, last] = spans[at % spans.length].map((far) => clamp(step * at + far, size[k]));
      return { at, center: offsets[k] + step * at, first, last, side: last - first + 1 };
    });

  let found = get("found");
  let [whole, sweep] = [true]; // whether that is complete; what goes on measuring
  // The number of the patch in which a pixel lies.
  const within = (k, patch) =>
    floor((floor(k / width) % height) / patch) * ceil(width / patch) + floor((k % width) / patch);

  // The square around the value that holds 90 % of the influence, and the part in one half as
  // wide as the field.
  const weigh = (map, patch, [down, across]) => {
    const rings = Array(4 * (height + width)).fill(0); // by the side of the square around a pixel
    for (let y = down.first; y <= down.last; y++)
      for (let x = across.first; x <= across.last; x++)
        rings[2 * max(abs(y - down.center), abs(x - across.center)) + 1] += map[within(y * width + x, patch)];
    const sum = (to) => rings.slice(0, to).reduce((total, value) => total + value, 0);
    const all = sum();
    // Patches tell nothing about a field that is narrower than two of them.
    if (min(down.side, across.side) < 2 * patch || !all) return ["–", "–"];
    let [square, held] = [0, 0];
    while (held < 0.899999999 * all) held += rings[++square];
    const inner = sum(max(down.side, across.side) / 2 + 1) / all;
    return [`${square} × ${square}`, `${round(100 * inner)}%`];
  };

  // --- what is shown

  const onclick = ({ offsetX, offsetY, target }) => {
    model.set("row", floor((offsetY / target.clientHeight) * height));
    put(model, "column", floor((offsetX / target.clientWidth) * width));
  };
  const panes = [`background:url(${get("picture")}) 0 0/100%`, ""].map((style) =>
    html("canvas", { role: "img", onclick, style }),
  );
  const bar = html("progress", { value: 0, "aria-label": "patches" });
  const numbers = html("div");

  const draw = () => {
    const { patch, maps } = found;
    const [now, shown] = [axes.map(get), get("stage")];
    const mine = whole && axes.every((axis, k) => found[axis] === now[k]);
    let [words, field] = [];
    const rows = stages.map((stage) => {
      const unit = look(stage);
      const sides = unit.map(({ side }) => side).join(" × ");
      const row = [stage.name, sides, ...(mine ? weigh(maps[stage.name], patch, unit) : ["…", "…"])];
      if (stage.name === shown) [words, field] = [row.map((cell, k) => `${head[k]} ${cell}`).join(", "), unit];
      return row;
    });
    panes[0].ariaLabel = `Image with the field: ${words}`;
    panes[1].ariaLabel = `Influence of patches of ${patch}: ${words}`;
    if (mine) spoken.say(words);
    numbers.replaceChildren(UNetBook.table(`row ${now[0]}, column ${now[1]}`, [head, ...rows]));

    const values = Array.from({ length: height * width }, (_, k) => maps[shown][within(k, patch)]);
    UNetBook.paintMap(panes[1], { values, height, width, range: [0, max(...maps[shown])] });
    [panes[0].height, panes[0].width] = size;
    const boxes = [field.flatMap(({ first, side }) => [first, side]), now.flatMap((at) => [at - 1, 3])];
    for (const canvas of panes)
      for (const [top, tall, left, broad] of boxes) {
        const context = canvas.getContext("2d");
        Object.assign(context, { strokeStyle: "#fc6", shadowColor: "#000", shadowBlur: 2 });
        context.strokeRect(left + 0.5, top + 0.5, broad - 1, tall - 1);
      }
    for (const name in controls) controls[name].set(get(name));
    button.textContent = sweep ? "Stop" : "Measure";
  };
  const frame = UNetBook.onFrame(draw);
  const turn = (now) => {
    sweep = now;
    frame();
  };

  // --- measuring

  const ready = UNetBook.pixels(get("picture"), size, get("colors"));
  const measure = async () => {
    const mine = {};
    turn(mine);
    try {
      const image = await ready;
      await host.wake();
      const [patch, [row, column], looked] = [get("patch"), axes.map(get), stages.map(look)];
      const units = Object.fromEntries(stages.map(({ name }, s) => [name, looked[s].map(({ at }) => at)]));
      const probe = async (image) => {
        const values = await host.call("probe", { image, height, width, units });
        if (mine !== sweep) throw mine;
        return values;
      };
      const own = await probe(image);
      const columns = ceil(width / patch);
      const blank = Array(columns * ceil(height / patch)).fill(0);
      const maps = Object.fromEntries(stages.map(({ name }) => [name, [...blank]]));
      [found, whole] = [{ row, column, patch, maps }, false];
      // Nearest first; what the output, the last stage, does not see moves nothing anywhere.
      const corner = (cell) => [floor(cell / columns) * patch, (cell % columns) * patch];
      const far = (cell) => hypot(corner(cell)[0] + patch / 2 - row, corner(cell)[1] + patch / 2 - column);
      const seen = (at, k) => at <= looked.at(-1)[k].last && at + patch > looked.at(-1)[k].first;
      const cells = [...blank.keys()]
        .filter((cell) => corner(cell).every(seen))
        .sort((a, b) => far(a) - far(b));
      bar.max = cells.length;
      for (bar.value = 0; bar.value < bar.max; bar.value++) {
        const cell = cells[bar.value];
        const moved = await probe(
          image.map((value, k) => (within(k, patch) === cell ? get("means")[floor(k / height / width)] : value)),
        );
        stages.forEach(({ name }, s) => {
          maps[name][cell] = hypot(...moved[s].map((value, c) => value - own[s][c]));
        });
        frame();
      }
      whole = true;
      put(model, "found", found);
    } catch (error) {
      if (error !== mine) host.fail(error); // else overtaken by the next one
    }
    if (mine === sweep) turn();
  };
  const button = UNetBook.button("", () => (sweep ? turn() : measure()));

  const change = (name) => (value) => put(model, name, Number(value) || value);
  const choose = (name, all) =>
    choice(name, { options: Object.fromEntries(all.map((one) => [one, one])), change: change(name) });
  const walk = (k) => slider(axes[k], { max: size[k] - 1, change: change(axes[k]) });
  const controls = {
    stage: choose("stage", stages.map(({ name }) => name)),
    patch: choose("patch", [4, 8, 16]),
    row: walk(0),
    column: walk(1),
  };
  el.append(
    html("div", { class: "unet-controls" }, Object.values(controls), button, bar),
    html("div", { class: "unet-panes" }, panes),
    html("p", {}, get("legend")),
    host.status,
    numbers,
    spoken,
  );
  draw();
  const moves = [...axes, "patch"];
  const ends = [follow(model, ["stage", ...moves], frame), follow(model, moves, measure), host.close];
  return () => ends.forEach((end) => end());
});
