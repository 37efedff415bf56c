// What the pages do beside the widgets. Loaded by every page, once it stands.
(() => {
  // A box that scrolls can be reached with the keyboard, one that does not need not be stopped at.
  // The theme measures all boxes at once when a page has loaded; here each is measured when the
  // reader comes near it. (The theme's script is told to ask for it when the site is built.)
  const measures = new WeakMap();
  const nearby = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        nearby.unobserve(target);
        measures.get(target)();
      }
    },
    { rootMargin: "50% 0px" },
  );
  globalThis.bookNear = (element, measure) => {
    measures.set(element, measure);
    nearby.unobserve(element);
    nearby.observe(element);
  };

  // On paper nothing can be unfolded, and dark paper is a waste of ink.
  const page = document.documentElement;
  let folded = [];
  let theme;
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("article details:not([open])")];
    for (const one of folded) one.open = true;
    theme = page.dataset.theme;
    page.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
    if (theme) page.dataset.theme = theme;
    folded = [];
  });
})();
