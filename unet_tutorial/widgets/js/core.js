// What all widgets of the book share: a registry, a model for pages without a kernel, and small
// helpers to build accessible HTML. No framework. The same text runs as a classic script on the
// built site and, with an export behind it, as the module of an anywidget.

const UNetBook = (() => {
  const book = { widgets: {} };

  // A widget is a function that fills an element and follows a model.
  book.register = (name, mount) => {
    book.widgets[name] = mount;
  };

  // The model of a page without a kernel: the part of anywidget's interface that widgets use.
  book.staticModel = (state) => {
    const values = { ...state };
    const listeners = {};
    const call = (event) => (listeners[event] ?? []).forEach((listener) => listener());
    return {
      isStatic: true,
      get: (name) => values[name],
      set: (name, value) => {
        if (values[name] === value) return;
        values[name] = value;
        call(`change:${name}`);
      },
      on: (event, listener) => (listeners[event] ??= []).push(listener),
      off: (event, listener) => {
        listeners[event] = (listeners[event] ?? []).filter((other) => other !== listener);
      },
      save_changes: () => call("change"),
    };
  };

  // The state that is stored in a page. A picture that is shown without script too is stored there.
  book.stateOf = (place) => {
    const stills = place.querySelectorAll(".unet-widget-still img");
    const text = place.querySelector("script[type='application/json']").textContent;
    return JSON.parse(text, (_, value) => (/^img:\d+$/.test(value) ? stills[value.slice(4)].src : value));
  };

  // Load another script of the built site, as a classic one: modules do not load from `file://`.
  const loads = {};
  book.load = (address) =>
    (loads[address] ??= new Promise((done, failed) => {
      const error = () => failed(new Error(`${address} does not load`));
      document.head.append(book.html("script", { src: address, onload: done, onerror: error }));
    }));

  // Bring the widgets of a page to life. What stood there without script stays in the page, hidden.
  book.boot = (root = document) => {
    for (const place of root.querySelectorAll(".unet-widget[data-widget]:not([data-live])")) {
      const { widget, module } = place.dataset;
      const mount = book.widgets[widget];
      // Widgets in which a network runs come in a script of their own, only where they are needed.
      if (!mount && module)
        book.load(new URL(module, book.base)).then(
          () => book.widgets[widget] && book.boot(root),
          () => {}, // what stands there without script stays
        );
      if (!mount) continue;
      place.dataset.live = "";
      const live = book.html("div", { class: "unet-widget-live" });
      mount(book.staticModel(book.stateOf(place)), live);
      place.querySelector(".unet-widget-still").hidden = true;
      place.append(live);
    }
  };

  // --- building elements

  // JupyterLab takes the arrow keys for itself, unless the very element with the focus says no.
  const FOCUS = "input, select, button, summary, [tabindex]";

  const build = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name in element && typeof value === "boolean") element[name] = value;
      else if (value !== undefined && value !== null) element.setAttribute(name, value);
    }
    if (element.matches(FOCUS)) element.setAttribute("data-lm-suppress-shortcuts", "");
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return element;
  };

  book.html = (tag, attributes, ...children) =>
    build(document.createElement(tag), attributes, children);

  book.svg = (tag, attributes, ...children) =>
    build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  // Ids tie a label to its control. They are made in the page, never stored; in JupyterLab every
  // widget brings this file of its own, so a number alone would be there twice.
  let labels = 0;
  const family = Math.random().toString(36).slice(2, 8);
  const newId = () => `unet-control-${family}-${++labels}`;

  // What stays as it was costs nothing: a browser lays a box out again even for the same words.
  book.renew = (element, name, value) => {
    if (element[name] !== String(value)) element[name] = value;
  };

  // A slider with its name before it and its value behind it.
  book.slider = (label, { min, max, step = 1, value, show = String, change }) => {
    const { html } = book;
    const id = newId();
    const output = html("output", { for: id }, show(value));
    const input = html("input", { type: "range", id, min, max, step, value });
    input.addEventListener("input", () => {
      output.textContent = show(Number(input.value));
      change(Number(input.value));
    });
    const control = html("div", { class: "unet-control" }, html("label", { for: id }, label), input, output);
    control.set = (next) => {
      book.renew(input, "value", next);
      book.renew(output, "textContent", show(next));
    };
    control.input = input;
    return control;
  };

  // A box for whole numbers: precise where a slider is coarse.
  book.number = (label, { min, max, step = 1, value, change }) => {
    const { html } = book;
    const id = newId();
    const input = html("input", { type: "number", id, min, max, step, value });
    input.addEventListener("input", () => {
      const given = Number(input.value);
      if (Number.isInteger(given) && given >= min && given <= max) change(given);
    });
    const control = html("div", { class: "unet-control" }, html("label", { for: id }, label), input);
    control.set = (next) => {
      if (document.activeElement !== input) book.renew(input, "value", next);
    };
    control.input = input;
    return control;
  };

  // One of a few options. `options` maps values to words.
  book.choice = (label, { options, value, change }) => {
    const { html } = book;
    const id = newId();
    const select = html(
      "select",
      { id, onchange: () => change(select.value) },
      Object.entries(options).map(([key, words]) => html("option", { value: key }, words)),
    );
    select.value = value;
    const control = html("div", { class: "unet-control" }, html("label", { for: id }, label), select);
    control.set = (next) => book.renew(select, "value", next);
    control.input = select;
    return control;
  };

  book.button = (words, click, attributes = {}) =>
    book.html("button", { type: "button", onclick: click, ...attributes }, words);

  // A table from rows of cells; the first row is the head, the first cell of the others a row head.
  book.table = (caption, [head, ...rows]) => {
    const { html } = book;
    return html(
      "table",
      {},
      html("caption", {}, caption),
      html("thead", {}, html("tr", {}, head.map((cell) => html("th", { scope: "col" }, cell)))),
      html(
        "tbody",
        {},
        rows.map(([first, ...cells]) =>
          html("tr", {}, html("th", { scope: "row" }, first), cells.map((cell) => html("td", {}, cell))),
        ),
      ),
    );
  };

  // Do something once the hand has come to rest.
  book.atRest = (work) => {
    let timer = 0;
    return (given) => {
      clearTimeout(timer);
      timer = setTimeout(work, 400, given);
    };
  };

  // What has changed, for those who hear the page.
  book.speaker = () => {
    const region = book.html("p", { class: "unet-spoken", "aria-live": "polite" });
    region.say = book.atRest((words) => {
      region.textContent = words;
    });
    return region;
  };

  // Draw at most once for each picture that the screen shows.
  book.onFrame = (draw) => {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        draw();
      });
    };
  };

  // Redraw when one of these traits changes, from the page or from Python. Returns what ends it.
  book.follow = (model, names, react) => {
    for (const name of names) model.on(`change:${name}`, react);
    return () => {
      for (const name of names) model.off(`change:${name}`, react);
    };
  };

  // Set a trait and tell Python, if there is one.
  book.put = (model, name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  // Put values into the words of Python's `str.format`, of which both halves of a widget make theirs.
  book.format = (words, values) => words.replace(/{(\w+)}/g, (_, name) => values[name]);

  book.calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  book.thousands = (number) => Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, ",");

  // Viridis for activations (0 to 1), and orange - white - blue for signed values (-1 to 1).
  const VIRIDIS = [
    [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
    [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37],
  ];
  const SIGNED = [[201, 106, 0], [251, 251, 251], [31, 78, 140]];

  const between = (colors, at) => {
    const place = Math.min(Math.max(at, 0), 1) * (colors.length - 1);
    const low = Math.min(Math.floor(place), colors.length - 2);
    const [from, to, part] = [colors[low], colors[low + 1], place - low];
    const mix = (k) => from[k] + part * (to[k] - from[k]);
    return [mix(0), mix(1), mix(2)];
  };

  book.viridis = (value) => between(VIRIDIS, value);
  book.signed = (value) => between(SIGNED, (value + 1) / 2);
  book.rgb = (color) => `rgb(${color.map(Math.round).join(" ")})`;
  return book;
})();
