// The U, drawn to scale and live: every block is a button that says what it does to the image.
{
  const { html, svg, put, thousands } = UNetBook;

  // The arrows of the paper's figure.
  const ARROWS = { convolution: "#2b6cb0", pool: "#c53030", up: "#2f855a", copy: "#7d838c", last: "#0f8b8d" };
  const OPTIONS = ["in_channels", "num_classes", "base_channels", "depth", "padding", "norm", "upsampling", "skip"];
  const STATE = ["height", "width", ...OPTIONS];
  const PRESETS = {
    article: { height: 512, width: 512, padding: "same", norm: "", upsampling: "transposed" },
    notes: { height: 512, width: 512, padding: "same", norm: "batch", upsampling: "bilinear" },
    paper: { height: 572, width: 572, padding: "valid", norm: "", upsampling: "transposed" },
  };
  const COMMON = { in_channels: 1, num_classes: 2, base_channels: 64, depth: 4, skip: "concat" };
  const shape = ([channels, height, width]) => `${channels} × ${height} × ${width}`;

  // --- where everything stands: heights in pixels of the image, widths in channels

  const place = (state, stages, view) => {
    const levels = state.depth + 1;
    const tallest = Math.max(state.height, 1);
    const unit = (0.42 * tallest) / Math.max(...stages.map(({ output }) => output[0]));
    const thin = 0.012 * tallest;
    const space = 0.16 * tallest;
    const level = ({ name }) => {
      if (name === "out") return 1;
      if (name === "bottleneck") return levels;
      return Number(name.replace(/\D+/, "")) + (name.startsWith("pool") ? 1 : 0);
    };
    const heights = Array(levels + 2).fill(0);
    heights[1] = state.height;
    for (const one of stages)
      for (const { output } of one.layers) heights[level(one)] = Math.max(heights[level(one)], output[1]);
    const tops = [0, 0];
    for (let k = 2; k <= levels; k++) tops[k] = tops[k - 1] + heights[k - 1] + 0.24 * tallest;

    const boxes = [];
    const arrows = [];
    const put = (left, row, [channels, height], owner, kind = "map") => {
      const box = { left, top: tops[row], width: Math.max(channels * unit, thin), height, channels, owner, kind };
      boxes.push(box);
      return box;
    };
    const arrow = (from, to, color, owner) => arrows.push({ from, to, color, owner });
    const right = (box) => box.left + box.width;
    const middle = (box) => box.top + box.height / 2;

    let box = put(0, 1, [state.in_channels, state.height], "image");
    const sources = {};
    for (const one of stages) {
      const row = level(one);
      if (one.name.startsWith("pool")) {
        const center = box.left + box.width / 2;
        const width = Math.max(one.output[0] * unit, thin);
        const low = put(center - width / 2, row, one.output, one.name);
        arrow([center, box.top + box.height], [center, low.top], "pool", one.name);
        box = low;
      } else if (one.name.startsWith("up")) {
        const white = view === "whole" && state.skip === "concat";
        const start = right(box) + space;
        const carried = white ? put(start, row, one.output, `skip${row}`, "copied") : null;
        const next = put(carried ? right(carried) : start, row, one.output, one.name);
        arrow([right(box), box.top], [next.left + next.width / 2, next.top + next.height], "up", one.name);
        box = carried ? { ...next, left: carried.left, width: carried.width + next.width } : next;
      } else if (one.name.startsWith("skip")) {
        const from = sources[`enc${row}`];
        arrow([right(from), middle(box)], [box.left, middle(box)], "copy", one.name);
      } else {
        for (const layer of one.layers) {
          if (layer.kind !== "convolution") continue;
          const next = put(right(box) + space, row, layer.output, one.name);
          const y = (Math.max(box.top, next.top) + Math.min(box.top + box.height, next.top + next.height)) / 2;
          arrow([right(box), y], [next.left, y], layer.kernel === 3 ? "convolution" : "last", one.name);
          box = next;
        }
        sources[one.name] = box;
      }
    }
    const extent = [Math.max(...boxes.map(right)), Math.max(...boxes.map((one) => one.top + one.height))];
    return { boxes, arrows, extent };
  };

  const draw = (state, stages, { view, selected, broken, dead, choose }) => {
    const shown = stages.filter(({ name }) => {
      if (view === "whole") return true;
      return /^(enc|pool)/.test(name) || (view === "bottleneck" && name === "bottleneck");
    });
    const { boxes, arrows, extent } = place(state, shown, view);
    const scale = 900 / extent[0];
    const X = (x) => (20 + x * scale).toFixed(1);
    const Y = (y) => (22 + y * scale).toFixed(1);
    const size = [940, Math.ceil(22 + extent[1] * scale + 26)];
    const picture = svg("svg", {
      viewBox: `0 0 ${size.join(" ")}`,
      role: "group",
      "aria-label": `The network as a U, to scale: ${shown.length} stages, each a button`,
    });
    const heads = Object.entries(ARROWS).map(([name, color]) =>
      svg(
        "marker",
        { id: `unet-head-${name}`, viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 5, markerHeight: 5, orient: "auto" },
        svg("path", { d: "M0 0L6 3L0 6z", fill: color }),
      ),
    );
    picture.append(svg("defs", {}, heads));
    const owners = ["image", ...shown.map(({ name }) => name)];
    for (const owner of owners) {
      const one = stages.find(({ name }) => name === owner);
      const pale = dead.has(owner);
      const label = one
        ? `${owner}, ${one.operation}: ${shape(one.output)}`
        : `image: ${shape([state.in_channels, state.height, state.width])}`;
      const attributes = { class: "unet-stage", opacity: pale ? 0.25 : 1 };
      if (one)
        Object.assign(attributes, {
          role: "button",
          tabindex: owner === selected ? 0 : -1,
          "aria-pressed": String(owner === selected),
          "aria-label": label + (owner === broken ? ", does not fit" : ""),
          "data-stage": owner,
          onclick: () => choose(owner),
        });
      const group = svg("g", attributes);
      for (const { from, to, color } of arrows.filter((arrow) => arrow.owner === owner)) {
        const wrong = owner === broken;
        group.append(
          // A broad line that nobody sees is easier to hit.
          svg("line", { x1: X(from[0]), y1: Y(from[1]), x2: X(to[0]), y2: Y(to[1]), stroke: "transparent", "stroke-width": 14 }),
          svg("line", {
            x1: X(from[0]), y1: Y(from[1]), x2: X(to[0]), y2: Y(to[1]),
            stroke: wrong ? "#d1460f" : ARROWS[color],
            "stroke-width": wrong ? 4 : 2,
            "stroke-dasharray": wrong ? "7 4" : null,
            "marker-end": `url(#unet-head-${color})`,
          }),
        );
      }
      for (const box of boxes.filter((other) => other.owner === owner)) {
        group.append(
          svg("rect", {
            x: X(box.left), y: Y(box.top), width: (box.width * scale).toFixed(1), height: Math.max(box.height * scale, 1).toFixed(1),
            fill: box.kind === "copied" ? "#fff" : "#90b8e0",
            stroke: owner === selected ? "var(--accent)" : owner === broken ? "#d1460f" : "#23272e",
            "stroke-width": owner === selected || owner === broken ? 3 : 1,
          }),
        );
      }
      const last = boxes.filter((other) => other.owner === owner).pop();
      if (last && !pale) {
        const x = X(last.left + last.width / 2);
        const words = { "text-anchor": "middle", "font-size": 11, fill: "currentColor" };
        const size = one ? one.output : [0, state.height, state.width];
        const square = size[1] === size[2] ? `${size[1]}²` : `${size[1]}×${size[2]}`;
        const joined = owner.startsWith("up") && boxes.some(({ owner: other }) => other === `skip${owner.slice(2)}`);
        const count = joined ? `${last.channels}+${last.channels}` : last.channels;
        const left = joined ? X(last.left) : x;
        if (!/^(pool|skip)/.test(owner))
          group.append(svg("text", { ...words, x: left, y: Number(Y(last.top)) - 4 }, String(count)));
        if (!/^(up|skip|dec1)/.test(owner)) // the last map of dec1 is as large as the output beside it
          group.append(svg("text", { x, y: Number(Y(last.top + last.height)) + 13, ...words }, square));
      }
      picture.append(group);
    }
    return picture;
  };

  // --- words

  const details = (one, stages) => {
    const lines = [
      ["output", shape(one.output)],
      ["crop on each side", one.crop[0] || one.crop[1] ? one.crop.join(", ") : "none"],
      ["parameters", thousands(one.parameters)],
      ["multiply-adds", thousands(one.multiplyAdds)],
      ["memory of its maps", `${(one.bytes / 1e6).toFixed(1)} MB`],
      ["sees", `${UNetBook.widestField(stages, one.name)}² pixels of the image`],
    ];
    return html(
      "div",
      { class: "unet-details" },
      html("strong", {}, `${one.name}: ${one.operation}`),
      html("dl", {}, lines.map(([name, value]) => [html("dt", {}, name), html("dd", {}, value)])),
      html("code", {}, one.code),
    );
  };

  const tableOf = (stages) => {
    const rows = stages.map((one) => [
      one.name, one.operation, shape(one.output), one.crop[0] || one.crop[1] ? one.crop.join(", ") : "",
      thousands(one.parameters), (one.multiplyAdds / 1e9).toFixed(3), (one.bytes / 1e6).toFixed(1),
    ]);
    const head = ["stage", "operation", "output C×H×W", "crop", "parameters", "GMAC", "MB"];
    return UNetBook.table("All stages", [head, ...rows]);
  };

  const python = (state) => {
    const given = Object.entries({ base_channels: 64, depth: 4, padding: "same", norm: "", upsampling: "transposed", skip: "concat" })
      .filter(([name, usual]) => state[name] !== usual)
      .map(([name]) => `, ${name}=${typeof state[name] === "string" ? JSON.stringify(state[name]) : state[name]}`);
    return (
      `model = UNet(${state.in_channels}, ${state.num_classes}${given.join("")})\n` +
      `print(trace_shapes(model, (${state.height}, ${state.width})))`
    );
  };

  UNetBook.explorerPython = python;

  UNetBook.register("shape-explorer", (model, el) => {
    const view = model.get("view");
    let repair = false;
    const read = () => Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
    const change = (name) => (value) => {
      repair = false;
      put(model, name, value);
    };
    const number = (label, name, min, max) =>
      UNetBook.number(label, { min, max, value: model.get(name), change: change(name) });
    const choice = (label, name, options) =>
      UNetBook.choice(label, { options, value: model.get(name), change: change(name) });
    const controls = {
      height: number("height", "height", 1, 4096),
      width: number("width", "width", 1, 4096),
      depth: UNetBook.slider("depth", { min: 1, max: 6, value: model.get("depth"), change: change("depth") }),
      base_channels: number("base channels", "base_channels", 1, 256),
      in_channels: number("image channels", "in_channels", 1, 64),
      num_classes: number("classes", "num_classes", 1, 64),
      padding: choice("padding", "padding", { same: "same", valid: "valid (paper)" }),
      norm: choice("norm", "norm", { "": "none", batch: "batch" }),
      upsampling: choice("upsampling", "upsampling", { transposed: "transposed", bilinear: "bilinear" }),
      skip: choice("skip", "skip", { concat: "concatenate", add: "add", none: "none" }),
    };
    const set = (values) => {
      repair = false;
      for (const [name, value] of Object.entries(values)) model.set(name, value);
      model.save_changes();
    };
    const presets = html(
      "div",
      { class: "unet-controls", role: "group", "aria-label": "presets" },
      Object.keys(PRESETS).map((name) =>
        UNetBook.button(name === "paper" ? "paper, 572" : name, () => set({ ...COMMON, ...PRESETS[name] })),
      ),
    );
    const figure = html("div", { class: "unet-scroll", tabindex: 0, role: "region", "aria-label": "the U" });
    const verdict = html("div", { class: "unet-verdict" });
    const chosen = html("div");
    const totals = html("p");
    const source = html("code");
    const all = html("div", { class: "unet-scroll", tabindex: 0, role: "region", "aria-label": "all stages" });
    const folded = html("details", {}, html("summary", {}, "all stages as a table"), all);
    const list = (stages) => all.replaceChildren(stages ? tableOf(stages) : "");
    const listAtRest = UNetBook.atRest(list);
    const spoken = UNetBook.speaker();
    const copied = html("span", { role: "status" });
    const copy = UNetBook.button("copy as Python", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        copied.textContent = " copied";
      } catch {
        getSelection().selectAllChildren(source); // a page from disk may not copy by itself
        copied.textContent = " selected: copy it with your keyboard";
      }
    });

    const choose = (name) => put(model, "selected", name);
    const fixes = (state, check, torch) => {
      const sizes = check.nearest.map((size) => size.join("×"));
      const [smaller, larger] = check.nearest.length > 1 ? check.nearest : [null, check.nearest[0]];
      const to = (size) => () => set({ height: size[0], width: size[1] });
      return html(
        "div",
        { class: "unet-controls", role: "group", "aria-label": "repairs" },
        UNetBook.button(`pad to ${larger.join("×")}`, to(larger)),
        smaller ? UNetBook.button(`crop to ${smaller.join("×")}`, to(smaller)) : null,
        torch && torch.up
          ? UNetBook.button("interpolate at the joints", () => {
              repair = true;
              redraw();
            })
          : null,
        html("span", {}, `Nearest sizes that fit: ${sizes.join(", ")}.`),
      );
    };

    const redraw = UNetBook.onFrame(() => {
      const state = read();
      for (const [name, control] of Object.entries(controls)) control.set(state[name]);
      const check = UNetBook.checkSize(state.height, state.width, state.depth, state.padding);
      const torch = !check.fits && state.padding === "same" && state.skip !== "none"
        ? UNetBook.torchVerdict(state.height, state.width, state.depth)
        : null;
      // Without padding a map may vanish: then there is nothing to draw.
      const drawable = check.fits || (torch && torch.sizes.length === state.depth + 1);
      const stages = drawable ? UNetBook.trace(state, state.height, state.width, repair) : [];
      const names = stages.map(({ name }) => name);
      const broken = check.fits || repair || !torch ? "" : torch.joint;
      const dead = new Set(broken ? names.slice(names.indexOf(broken) + 1) : []);
      let selected = model.get("selected");
      if (!names.includes(selected)) selected = "bottleneck";
      if (view === "contracting" && !/^(enc|pool)/.test(selected)) selected = "enc1";
      const held = figure.contains(document.activeElement);
      figure.replaceChildren(
        drawable
          ? draw(state, stages, { view, selected, broken, dead, choose })
          : html("p", {}, "There is nothing to draw for this size."),
      );
      if (held) figure.querySelector(`[data-stage="${selected}"]`)?.focus();

      verdict.replaceChildren();
      if (!check.fits) {
        verdict.append(html("p", {}, repair ? "Every map that comes up is resized to its skip: " : `${check.message}`));
        if (repair) verdict.append(html("code", {}, "x = F.interpolate(x, size=x2.shape[-2:])"));
        else if (torch && torch.message)
          verdict.append(html("p", {}, `PyTorch, left alone, stops at ${torch.joint}: `, html("code", {}, torch.message)));
        verdict.append(fixes(state, check, torch));
      }
      const one = stages.find(({ name }) => name === selected);
      chosen.replaceChildren(one && !dead.has(selected) ? details(one, stages) : "");
      const sum = (key) => stages.reduce((total, other) => total + other[key], 0);
      const whole = check.fits || repair;
      totals.textContent = whole
        ? `All: ${thousands(sum("parameters"))} parameters, ${(sum("multiplyAdds") / 1e9).toFixed(3)} billion ` +
          `multiply-adds, ${(sum("bytes") / 1e6).toFixed(1)} MB of maps. ` +
          `${state.height}×${state.width} → ${stages[stages.length - 1].output.slice(1).join("×")}.`
        : "";
      source.textContent = python(state);
      if (folded.open) list(whole && stages);
      listAtRest(whole && stages); // folded, it is seen by nobody but a printer
      spoken.say(check.fits ? totals.textContent : check.message);
      if (model.isStatic && touched) remember(state);
    });

    // The state in the page's address, so that a reader can send it to somebody.
    let touched = false;
    const key = `explorer-${view}`;
    // An address takes longer than a drawing, and browsers count how often it changes.
    const remember = UNetBook.atRest((state) => {
      const parts = Object.entries(state).map(([name, value]) => `${name}:${value}`);
      history.replaceState(null, "", `#${key}=${parts.join(",")}`);
    });
    if (model.isStatic && location.hash.startsWith(`#${key}=`)) {
      for (const part of location.hash.slice(key.length + 2).split(",")) {
        const [name, value] = part.split(":");
        if (STATE.includes(name)) model.set(name, typeof model.get(name) === "number" ? Number(value) || 1 : value);
      }
    }

    figure.addEventListener("keydown", (event) => {
      const stages = [...figure.querySelectorAll("[data-stage]")].map((group) => group.dataset.stage);
      const at = stages.indexOf(document.activeElement?.dataset?.stage);
      if (at < 0) return;
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const next = event.key === "Home" ? 0 : event.key === "End" ? stages.length - 1 : step ? at + step : at;
      if (next === at && ![" ", "Enter"].includes(event.key)) return;
      event.preventDefault();
      choose(stages[Math.min(Math.max(next, 0), stages.length - 1)]);
    });

    el.append(
      presets,
      html("div", { class: "unet-controls" }, Object.values(controls)),
      figure,
      verdict,
      chosen,
      totals,
      html("p", {}, source, " ", copy, copied),
      folded,
      spoken,
    );
    redraw();
    const end = UNetBook.follow(model, [...STATE, "selected"], () => {
      touched = true;
      redraw();
    });
    return end;
  });
}
