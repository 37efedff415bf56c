// One training, step by step: what the network predicts, beside its loss and its score.

UNetBook.register("training-playback", (model, el) => {
  const { html, put, calm } = UNetBook;
  const frames = model.get("frames");
  const last = frames.length - 1;
  const now = () => model.get("frame");
  const go = (k) => put(model, "frame", k);

  const picture = (alt, src) =>
    html(
      "div",
      { style: "flex:1 1 7rem;max-width:12rem" },
      alt,
      html("img", { src, alt, style: "width:100%" }),
    );
  const pictures = frames.map(({ step, picture: src }) => picture(`after step ${step}`, src));
  const charts = model.get("charts").map((svg) => {
    const chart = html("div", { style: "flex:1 1 14rem;max-width:24rem" });
    chart.innerHTML = svg;
    return chart;
  });

  let timer = 0;
  const stop = () => {
    timer = clearInterval(timer);
    draw();
  };
  const tick = () => {
    if (now() < last) go(now() + 1);
    if (now() === last) stop();
  };
  // Who has asked for little motion moves on one step at a time.
  const play = UNetBook.button("", () => {
    if (timer) return stop();
    if (now() === last) go(0);
    else if (calm()) tick();
    if (!calm()) timer = setInterval(tick, 700);
    draw();
  });
  const slider = UNetBook.slider("step", {
    min: 0,
    max: last,
    value: now(),
    show: (k) => frames[k].step,
    change: go,
  });
  const words = html("p");
  const spoken = UNetBook.speaker();

  const draw = () => {
    const { step, marks, ...scores } = frames[now()];
    pictures.forEach((shown, k) => (shown.hidden = k !== now()));
    charts.forEach((chart, k) => {
      const marker = chart.querySelector("circle");
      ["cx", "cy"].forEach((name, axis) => marker.setAttribute(name, marks[k][axis]));
    });
    slider.set(now());
    slider.input.setAttribute("aria-valuetext", `step ${step}`);
    play.textContent = timer ? "pause" : calm() ? "next" : "play";
    const [loss, error, dice] = ["loss", "error", "dice"].map((key) => scores[key].toFixed(3));
    words.textContent = `After step ${step}: loss ${loss}, pixel error ${error}, Dice ${dice}`;
    if (!timer) spoken.say(words.textContent);
  };
  const row = (...parts) => html("div", { style: "display:flex;flex-wrap:wrap;gap:1rem" }, parts);
  el.append(
    html("div", { class: "unet-controls" }, play, slider),
    row(picture("image", model.get("image")), picture("label", model.get("label")), pictures),
    words,
    row(charts),
    spoken,
  );
  draw();
  const end = UNetBook.follow(model, ["frame"], UNetBook.onFrame(draw));
  return () => {
    clearInterval(timer);
    end();
  };
});
