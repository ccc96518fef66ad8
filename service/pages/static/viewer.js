"use strict";
// The full picture: zoom by buttons, keys, wheel with Ctrl, two fingers and double click; drag to move.

(() => {
  const viewer = document.getElementById("viewer");
  const image = viewer.querySelector("img");
  const MOST = 8;
  const STEP = 1.5;
  let factor = 1; // 1 fits the viewer
  let fitting = 0; // the width that it has then

  /** Zoom so that the point (x, y) of the viewer stays where it is. */
  function zoom(to, x = viewer.clientWidth / 2, y = viewer.clientHeight / 2) {
    const next = Math.min(MOST, Math.max(1, to));
    if (factor === 1) fitting = image.getBoundingClientRect().width;
    const ratio = next / factor;
    const left = (viewer.scrollLeft + x) * ratio - x;
    const top = (viewer.scrollTop + y) * ratio - y;
    factor = next;
    image.style.width = factor === 1 ? "" : `${factor * fitting}px`;
    image.classList.toggle("zoomed", factor !== 1);
    viewer.scrollTo(left, top);
    document.getElementById("zoom").textContent = `${Math.round(factor * 100)} %`;
  }

  const acts = { in: () => zoom(factor * STEP), out: () => zoom(factor / STEP), fit: () => zoom(1) };
  const keys = { "+": acts.in, "=": acts.in, "-": acts.out, 0: acts.fit };

  document.querySelectorAll("[data-zoom]").forEach((button) => {
    button.addEventListener("click", acts[button.dataset.zoom]);
  });

  viewer.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  viewer.addEventListener("dblclick", (event) => {
    const { left, top } = viewer.getBoundingClientRect();
    zoom(factor > 1 ? 1 : 3, event.clientX - left, event.clientY - top);
  });

  viewer.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const { left, top } = viewer.getBoundingClientRect();
    zoom(factor * Math.exp(-event.deltaY / 200), event.clientX - left, event.clientY - top);
  }, { passive: false });

  // Of two fingers the browser must not scroll: it would take the gesture away in its midst.
  let apart = 0;

  function pinch(event) {
    if (event.touches.length !== 2) return;
    if (event.cancelable) event.preventDefault();
    const [a, b] = event.touches;
    const { left, top } = viewer.getBoundingClientRect();
    const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const x = (a.clientX + b.clientX) / 2 - left;
    const y = (a.clientY + b.clientY) / 2 - top;
    if (event.type === "touchmove" && apart) zoom(factor * (now / apart), x, y);
    apart = now;
  }

  viewer.addEventListener("touchstart", pinch, { passive: false });
  viewer.addEventListener("touchmove", pinch, { passive: false });

  let from = null; // where the mouse drags from

  viewer.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    viewer.setPointerCapture(event.pointerId);
    from = { x: event.clientX, y: event.clientY };
  });

  viewer.addEventListener("pointermove", (event) => {
    if (!from || event.pointerType !== "mouse") return;
    viewer.scrollBy(from.x - event.clientX, from.y - event.clientY);
    from = { x: event.clientX, y: event.clientY };
  });

  for (const name of ["pointerup", "pointercancel"]) {
    viewer.addEventListener(name, () => { from = null; });
  }
})();
