"use strict";
// A search is kept with the page's place in the tab's history, in no URL: the way back leads to it.

(() => {
  const form = document.getElementById("search");

  form.addEventListener("submit", () => {
    history.replaceState(Object.fromEntries(new FormData(form)), "");
  });

  window.addEventListener("load", () => {
    const [arrival] = performance.getEntriesByType("navigation");
    if (arrival.type !== "back_forward") history.replaceState(null, ""); // by a link to this page
    const kept = Object.entries(history.state || {}).filter(([, value]) => value);
    for (const [name, value] of kept) form.elements[name].value = value;
    if (kept.length) form.requestSubmit();
  });
})();
