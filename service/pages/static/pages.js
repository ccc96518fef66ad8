"use strict";
// What all pages share: the token against forged requests, questions, refusals and notices.

const jpegstow = {
  token: document.querySelector('meta[name="csrf-token"]').content,

  /** Show what a problem (RFC 9457) says, in the parts of an element; what the service says is English. */
  tell(element, problem) {
    for (const part of ["said", "detail", "where", "mend"]) {
      const shown = element.querySelector(`[data-part="${part}"]`);
      const text = problem[part] || "";
      const place = shown.querySelector("span") || shown;
      place.textContent = text;
      place.lang = problem.type && part !== "said" ? "en" : document.documentElement.lang;
      shown.hidden = !text;
    }
  },

  /** Show a problem at the top of the page. */
  alert(problem) {
    const alert = document.getElementById("alert");
    jpegstow.tell(alert, problem);
    alert.querySelector('[data-part="sign-in"]').hidden = problem.status !== 401;
    alert.hidden = false;
    alert.focus();
  },

  /** Tell whether no problem is shown at the top of the page. */
  isCalm: () => document.getElementById("alert").hidden,

  calm() {
    document.getElementById("alert").hidden = true;
  },

  notice(text) {
    const notice = document.getElementById("notice");
    jpegstow.calm();
    notice.textContent = text;
    notice.hidden = !text;
  },

  /** Go to another page of ours, and let it tell what was done. */
  goTo(path, text) {
    sessionStorage.setItem("jpegstow.notice", text);
    location.assign(path);
  },

  /** Return the problem that a response's text holds, or one that says that nothing came. */
  problem(text) {
    const says = document.body.dataset;
    try {
      const { status, ...problem } = JSON.parse(text);
      if (!problem.detail) throw new Error("it was no answer of the service's");
      const said = JSON.parse(says.problems)[status] || "";
      return status === 401 ? { status, said, mend: says.sessionMend } : { status, said, ...problem };
    } catch {
      return { said: says.connection, mend: says.connectionMend };
    }
  },

  /** Take the token of a session that was begun in another tab; resolve to whether there was one. */
  async renewed(problem) {
    if (problem.type !== "urn:jpegstow:no-csrf-token") return false;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
    const page = new DOMParser().parseFromString(answer ? await answer.text() : "", "text/html");
    const token = page.querySelector('meta[name="csrf-token"]')?.content;
    if (token) jpegstow.token = token;
    return Boolean(token);
  },

  /** Show what an act was refused; where it only lacked a newer session's token, that it may be repeated. */
  async refuse(problem) {
    const { sessionChanged, sessionChangedMend } = document.body.dataset;
    const again = { said: sessionChanged, mend: sessionChangedMend };
    jpegstow.alert((await jpegstow.renewed(problem)) ? again : problem);
  },

  /** Ask a question; resolve to whether it was answered with the named act. */
  ask(question, act) {
    const dialog = document.getElementById("confirm");
    const ok = dialog.querySelector('button[value="ok"]');
    dialog.querySelector("#confirm-question").textContent = question;
    ok.textContent = act;
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
    });
  },
};

document.querySelectorAll("#confirm button").forEach((button) => {
  button.addEventListener("click", () => button.closest("dialog").close(button.value));
});

document.querySelector("#alert [data-close]").addEventListener("click", jpegstow.calm);

document.body.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRF-Token"] = jpegstow.token;
});

document.body.addEventListener("htmx:confirm", (event) => {
  if (!event.detail.question) return;
  event.preventDefault();
  const act = event.detail.elt.dataset.act || event.detail.elt.textContent.trim();
  jpegstow.ask(event.detail.question, act).then((yes) => {
    if (yes) event.detail.issueRequest(true);
  });
});

// A refresh must not take away what a question is about.
for (const moment of ["htmx:beforeRequest", "htmx:beforeSwap"]) {
  document.body.addEventListener(moment, (event) => {
    const asking = document.querySelector("dialog[open]");
    if (asking && event.detail.requestConfig?.elt.matches("[data-refresh]")) event.preventDefault();
  });
}

document.body.addEventListener("htmx:responseError", async (event) => {
  const problem = jpegstow.problem(event.detail.xhr.responseText);
  if (!event.detail.elt.matches("[data-refresh]")) jpegstow.refuse(problem);
  // The next refresh has the newer token; what one is refused is told once, not every five seconds.
  else if (!(await jpegstow.renewed(problem)) && jpegstow.isCalm()) jpegstow.alert(problem);
});

document.body.addEventListener("htmx:sendError", (event) => {
  // A refresh that nobody asked for may fail in silence: the next one comes soon.
  if (!event.detail.elt.matches("[data-refresh]")) jpegstow.alert(jpegstow.problem(""));
});

// What an act has done is told here, or on the page that it leads to.
document.body.addEventListener("htmx:afterRequest", (event) => {
  const { elt, successful } = event.detail;
  if (successful && elt.matches("[data-refresh]")) jpegstow.calm();
  if (!successful || !elt.dataset.done) return;
  const going = event.detail.xhr.status === 202 && elt.dataset.going;
  if (elt.dataset.then) {
    jpegstow.goTo(elt.dataset.then, going || elt.dataset.done);
    return;
  }
  jpegstow.notice(elt.dataset.done);
  const refreshed = document.querySelector("[data-refresh]");
  if (refreshed) htmx.trigger(refreshed, "refresh");
});

const told = sessionStorage.getItem("jpegstow.notice");
if (told) {
  sessionStorage.removeItem("jpegstow.notice");
  jpegstow.notice(told);
}

// A link back to where one comes from goes there, with what was searched for, and not to a new page.
document.querySelectorAll("a[data-back]").forEach((link) => {
  link.addEventListener("click", (event) => {
    const isOther = event.ctrlKey || event.metaKey || event.shiftKey;
    if (isOther || history.length < 2 || document.referrer !== link.href) return;
    event.preventDefault();
    history.back();
  });
});

// Whoever comes after doesn't find the last patient in this tab.
document.querySelector('form[action="/sign-out"]')?.addEventListener("submit", () => {
  sessionStorage.clear();
});

// What is folded on a phone stands open where there is room.
if (matchMedia("(min-width: 36rem)").matches) {
  document.querySelectorAll("details[data-wide]").forEach((details) => { details.open = true; });
}
