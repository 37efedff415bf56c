// What a network makes of one image: a few maps of each stage, arranged as the U. Python stores
// the maps of a stage side by side in one gray picture; viridis is laid on here.

UNetBook.register("feature-maps", (model, el) => {
  const { html, rgb, viridis } = UNetBook;
  const PIXELS = "display:block;image-rendering:pixelated;width:";
  const stages = model.get("stages").map((stage) => ({ ...stage }));
  const row = (...children) =>
    html("div", { style: "display:flex;flex-wrap:wrap;gap:4px;justify-content:inherit" }, children);

  const choose = (map) => {
    model.set("stage", map.stage.name);
    UNetBook.put(model, "channel", map.channel);
  };
  for (const stage of stages) {
    stage.maps = stage.maps.map((given, k) => {
      const map = { ...given, stage, k, canvas: html("canvas", { style: `${PIXELS}36px` }) };
      map.canvas.ariaHidden = "true";
      map.button = UNetBook.button(map.canvas, () => choose(map), {
        "aria-label": `${stage.name}, channel ${map.channel}`,
        style: "padding:3px",
      });
      return map;
    });
  }
  const maps = stages.flatMap((stage) => stage.maps);
  const open = () => {
    const stage = stages.find(({ name }) => name === model.get("stage"));
    return stage.maps.find(({ channel }) => channel === model.get("channel")) ?? stage.maps[0];
  };

  const paint = (canvas, { stage, k }) => {
    [canvas.height, canvas.width] = stage.side;
    if (stage.colored) canvas.getContext("2d").drawImage(stage.colored, -k * canvas.width, 0);
  };
  const color = async (stage) => {
    const sheet = html("img", { src: stage.sheet });
    await sheet.decode();
    const { width, height } = sheet;
    const canvas = html("canvas", { width, height });
    const context = canvas.getContext("2d");
    context.drawImage(sheet, 0, 0);
    const picture = context.getImageData(0, 0, width, height);
    for (let at = 0; at < picture.data.length; at += 4)
      picture.data.set(viridis(picture.data[at] / 255).map(Math.round), at);
    context.putImageData(picture, 0, 0);
    stage.colored = canvas;
    for (const map of stage.maps) paint(map.canvas, map);
    paint(large, open());
  };

  const large = html("canvas", { role: "img", style: `${PIXELS}15rem;max-width:100%` });
  const [title, words, low, high] = ["strong", "p", "span", "span"].map((tag) => html(tag));
  const stops = [...Array(10).keys()].map((k) => rgb(viridis(k / 9)));
  const bar = `width:8rem;background:linear-gradient(90deg,${stops})`;
  const spoken = UNetBook.speaker();
  const draw = () => {
    const now = open();
    for (const map of maps) {
      map.button.ariaPressed = map === now;
      map.button.tabIndex = map === now ? 0 : -1; // one stop for Tab, arrow keys from there
    }
    paint(large, now);
    title.textContent = now.button.ariaLabel;
    words.textContent = now.words;
    [low.textContent, high.textContent] = now.span;
    large.ariaLabel = `Map of ${title.textContent}: ${now.words}`;
    spoken.say(large.ariaLabel);
  };

  // Left and right: the next map. Up and down: a map of the next stage.
  const move = (event) => {
    const { stage, k } = open();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const leap = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step && !leap) return;
    event.preventDefault();
    const others = stages[stages.indexOf(stage) + leap]?.maps;
    const next = step ? maps[maps.indexOf(open()) + step] : others?.[k] ?? others?.at(-1);
    if (!next) return;
    choose(next);
    next.button.focus();
  };

  const image = html("img", { src: model.get("image"), alt: "The image", style: "width:15rem" });
  const scale = row(low, html("span", { style: bar }), high);
  const side = html("div", { style: "flex:1 1 10rem" }, title, words, scale);
  const blocks = stages.map(({ name, title, place, maps }) =>
    html(
      "div",
      { role: "group", "aria-label": name, style: place },
      title,
      row(maps.map(({ button }) => button)),
    ),
  );
  const style = "display:grid;gap:0.5rem;grid-template-columns:1fr 1fr;margin-top:0.5rem";
  const label = "Maps of the stages; arrow keys move";
  el.append(
    row(image, large, side),
    html("div", { role: "toolbar", "aria-label": label, style, onkeydown: move }, blocks),
    html("p", {}, model.get("legend")),
    spoken,
  );
  stages.forEach(color);
  draw();
  return UNetBook.follow(model, ["stage", "channel"], UNetBook.onFrame(draw));
});
