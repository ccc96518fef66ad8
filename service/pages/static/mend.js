"use strict";
// The page of an entry: what is typed anew is sent as JSON, and only what has changed.

(() => {
  const form = document.getElementById("mend");
  if (!form) return;
  const another = document.getElementById("another");
  const added = document.getElementById("added");

  const valueOf = (text) => (text.includes("\\") ? text.split("\\") : text);

  function correction() {
    const attributes = {};
    for (const input of form.querySelectorAll("input[name]")) {
      if (input.value !== input.defaultValue) attributes[input.name] = valueOf(input.value.trim());
    }
    for (const group of added.children) {
      const keyword = group.querySelector("[data-keyword]").value.trim();
      if (keyword) attributes[keyword] = valueOf(group.querySelector("[data-value]").value.trim());
    }
    const template = form.querySelector("[data-template]");
    const chosen = template.selectedOptions[0];
    const said = Object.keys(attributes).length ? { attributes } : {};
    return chosen && !chosen.defaultSelected ? { ...said, template: template.value } : said;
  }

  async function send() {
    const body = correction();
    const isChanged = Object.keys(body).length > 0;
    document.getElementById("summary").textContent = isChanged ? "" : form.dataset.nothing;
    if (!isChanged) return;
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": jpegstow.token };
    const options = { method: "POST", headers, body: JSON.stringify(body) };
    const response = await fetch(form.dataset.url, options).catch(() => null);
    if (response && response.ok) {
      jpegstow.goTo("/queue", form.dataset.done);
      return;
    }
    const problem = jpegstow.problem(response ? await response.text() : "");
    const field = problem.where && form.querySelector(`[name="${CSS.escape(problem.where)}"]`);
    if (field) field.setAttribute("aria-invalid", "true");
    jpegstow.refuse(field ? { ...problem, where: field.labels[0].textContent } : problem);
  }

  form.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });

  document.getElementById("add").addEventListener("click", () => {
    added.append(another.content.cloneNode(true));
    added.lastElementChild.querySelector("input").focus();
  });
})();
