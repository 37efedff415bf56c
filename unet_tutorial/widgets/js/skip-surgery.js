// A network on the table: cut, dim or exchange what its skips carry; mask and scores follow.

UNetBook.register("skip-surgery", (model, el) => {
  const { html, put, choice, slider, button, paintMap, pixels, table, follow } = UNetBook;
  const host = UNetBook.live(model);
  const spoken = UNetBook.speaker();
  const get = (name) => model.get(name);
  const [networks, [height, width], area, target] = ["networks", "size", "area", "target"].map(get);
  const controls = (...all) => html("div", { class: "unet-controls" }, all);

  // --- what is set

  const change = (name, k) => (value) => put(model, name, get(name).map((old, j) => (j === k ? value : old)));
  const every = (way) => () => {
    model.set("parts", get("parts").map(() => 100));
    put(model, "ways", get("ways").map(() => way));
  };
  const which = choice("network", {
    options: Object.fromEntries(networks.map(({ name, title }) => [name, title])),
    change: (name) => put(model, "network", name),
  });
  const skips = get("ways").map((_, k) => [
    choice(`skip ${k + 1}`, { options: Object.fromEntries(get("names")), change: change("ways", k) }),
    slider(`part of skip ${k + 1}`, { max: 100, show: (part) => `${part}%`, change: change("parts", k) }),
  ]);
  const room = html(
    "div",
    {},
    skips.map((pair) => controls(pair)),
    button("Cut all", every("cut")),
    " ",
    button("As trained", every("own")),
  );

  // --- what is shown

  const pane = (words, picture) => html("div", {}, words, picture);
  const given = (name, alt) => pane(alt, html("img", { src: get(name), alt }));
  // The pale image lies behind the wrong pixels.
  const pale = `background:linear-gradient(rgb(255 255 255/35%) 0 0),url(${get("middle")}) 0 0/100%`;
  const [chance, wrong] = ["", pale].map((style) => html("canvas", { role: "img", style }));
  const [scores, about] = [html("div"), html("p")];

  let label;
  // Light is the probability of the background, dark that of what is looked for.
  const show = (values) => {
    const [tall, broad] = area;
    const map = { values, height: tall, width: broad, range: [0, 1] };
    paintMap(chance, map, (value) => Array(3).fill(255 * value));
    [wrong.height, wrong.width] = area;
    const context = wrong.getContext("2d");
    let [both, errors] = [0, 0];
    values.forEach((value, k) => {
      const [found, real] = [value < 0.5, label[k] < 0.5];
      if (found && real) both += 2;
      if (found === real) return;
      errors++;
      context.fillStyle = real ? "#e07b00" : "#2f6fde";
      context.fillRect(k % broad, Math.floor(k / broad), 1, 1);
    });
    const dice = both + errors ? both / (both + errors) : 1;
    const rows = [
      ["now", `${((100 * errors) / values.length).toFixed(1)}%`, dice.toFixed(3)],
      ["as trained", ...get("scores")[get("network")]],
    ];
    const words = rows.map(([when, error, dice]) => `${when} ${error} wrong, Dice ${dice}`).join("; ");
    wrong.ariaLabel = `Missed ${target} orange, invented blue: ${words}`;
    scores.replaceChildren(table(target, [["skips", "wrong pixels", "Dice"], ...rows]));
    return words;
  };

  // --- running

  const colors = get("colors");
  const ready = Promise.all([
    pixels(get("picture"), [height, width], colors),
    pixels(get("other"), [height, width], colors),
    pixels(get("label"), area),
    pixels(get("probability"), area),
  ]);
  const treat = (from, k) => [k + 1, { from, scale: from === "cut" ? 0 : get("parts")[k] / 100 }];
  const treated = () => Object.fromEntries(get("ways").map(treat));
  let kept; // the network that has seen the other image
  const ask = host.newest(async ([image, other]) => {
    const name = get("network");
    await host.wake();
    if (kept !== name) await host.run({ image: other, height, width, keep: true });
    kept = name;
    // In one expression: the minifier moves destructurings before the constants that they use.
    const { probabilities } = await host.run({ image, height, width, skips: treated() });
    spoken.say(show(probabilities.subarray(0, area[0] * area[1])));
  });

  const draw = () => {
    const name = get("network");
    which.set(name);
    room.hidden = get("absent").includes(name);
    skips.forEach(([way, part], k) => {
      const chosen = get("ways")[k];
      way.set(chosen);
      part.set(get("parts")[k]);
      part.style.visibility = chosen === "cut" ? "hidden" : "";
    });
    const { words } = networks.find((one) => one.name === name);
    about.textContent = room.hidden ? `It has no skips to cut. ${words}` : words;
  };
  chance.ariaLabel = `Probability of ${target}, black is 1`;
  el.append(
    networks.length > 1 ? controls(which) : "",
    room,
    html(
      "div",
      { class: "unet-panes" },
      given("picture", "image"),
      given("other", "the other image"),
      pane(`${target}: probability`, chance),
      pane("orange: missed; blue: invented", wrong),
    ),
    scores,
    host.status,
    about,
    spoken,
  );
  draw();
  ready.then((images) => {
    label = images[2];
    if (!host.awake) show(images[3]);
  });
  const names = ["network", "ways", "parts"];
  const ends = [
    follow(model, names, UNetBook.onFrame(draw)),
    follow(model, names, () => ready.then(ask)),
    host.close,
  ];
  return () => ends.forEach((end) => end());
});
