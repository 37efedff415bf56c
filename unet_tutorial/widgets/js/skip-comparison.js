// One image through several networks: wipe between two, see the wrong pixels.

UNetBook.register("skip-comparison", (model, el) => {
  const { html, put } = UNetBook;
  const networks = model.get("networks");
  const names = networks.map(({ name }) => name);
  const [height, width] = model.get("size");
  const sides = ["left", "right"];
  const choices = sides.map((side) =>
    UNetBook.choice(side, {
      options: Object.fromEntries(names.map((name) => [name, name])),
      value: model.get(side),
      change: (name) => put(model, side, name),
    }),
  );
  const toggle = UNetBook.button("wrong pixels", () => put(model, "errors", !model.get("errors")));
  const slider = UNetBook.slider("wipe", {
    min: 0,
    max: 100,
    value: model.get("wipe"),
    show: (percent) => `${percent}%`,
    change: (percent) => put(model, "wipe", percent),
  });
  slider.input.style = "flex:1;max-width:none";

  const FILL = "inset:0;pointer-events:none;position:absolute;";
  const SHARP = "background-size:100% 100%;image-rendering:pixelated";
  const layers = sides.map(() => html("div", { style: FILL + SHARP }));
  const border = html("div", { style: `${FILL}background:#000;outline:1px solid #fff;width:1px` });
  const drag = ({ buttons, offsetX }) => {
    if (buttons) put(model, "wipe", Math.round((100 * offsetX) / stage.clientWidth));
  };
  const style = `aspect-ratio:${width}/${height};position:relative;touch-action:pan-y`;
  const stage = html(
    "div",
    { role: "img", style, onpointerdown: drag, onpointermove: drag },
    layers,
    border,
  );
  const heads = html("div", { style: "display:flex;gap:1rem;justify-content:space-between" });
  const spoken = UNetBook.speaker();

  const draw = () => {
    const [errors, wipe] = [model.get("errors"), model.get("wipe")];
    const scores = sides.map((side, k) => {
      const { name, map, wrong, shares } = networks[names.indexOf(model.get(side))];
      choices[k].set(name);
      // 35 % white: pale, as in the book's figures.
      const pale = `linear-gradient(rgb(255 255 255/35%) 0 0),url(${model.get("image")})`;
      layers[k].style.backgroundImage = errors ? `url(${wrong}),${pale}` : `url(${map})`;
      return `${side}: ${name}, ${shares[0]} wrong`;
    });
    layers[1].style.clipPath = `inset(0 0 0 ${wipe}%)`;
    border.style.left = `${wipe}%`;
    slider.set(wipe);
    toggle.setAttribute("aria-pressed", errors);
    heads.replaceChildren(...scores.map((score) => html("span", {}, score)));
    const words = `${errors ? "Wrong pixels" : "Membrane maps"}, ${scores.join("; ")}`;
    stage.setAttribute("aria-label", `${words}. Border at ${wipe}%.`);
    if (words !== spoken.last) spoken.say((spoken.last = words));
  };

  const square = (color, words) => [html("span", { style: `color:${color}` }, "■\u00a0"), words];
  const given = (name) =>
    html(
      "div",
      { style: "flex:1;max-width:12rem" },
      name,
      html("img", { src: model.get(name), alt: name, style: "width:100%" }),
    );
  el.append(
    html("div", { class: "unet-controls" }, choices, toggle),
    html(
      "div",
      { style: "display:flex;flex-wrap:wrap;gap:1rem" },
      html("div", { style: "flex:1 1 15rem;max-width:26rem" }, heads, stage, slider),
      html("div", { style: "display:flex;flex:1 1 15rem;gap:1rem" }, ["image", "label"].map(given)),
    ),
    html(
      "div",
      { class: "unet-scroll", role: "region", tabindex: 0, "aria-label": "errors" },
      UNetBook.table(`Share of ${height}×${width} pixels`, [
        ["network", "wrong", square("#e07b00", "missed"), square("#2f6fde", "invented")],
        ...networks.map(({ name, shares }) => [name, ...shares]),
      ]),
    ),
    spoken,
  );
  draw();
  return UNetBook.follow(model, [...sides, "errors", "wipe"], UNetBook.onFrame(draw));
});
