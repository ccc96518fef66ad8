"use strict";
// The upload page: pictures are sent one by one, each with its own progress and result.

(() => {
  const form = document.getElementById("upload");
  const list = document.getElementById("pictures");
  const says = form.dataset;
  const KEPT = "jpegstow.patient";
  const LONGEST_SILENCE = 120_000; // milliseconds without a byte sent, or until the answer
  const pictures = []; // { file, row, state, link }

  // ---- what stays between the pictures of one patient, in this tab only ----

  const fields = () => [...form.querySelectorAll("input:not([type=file]), select")];
  const kept = () => JSON.parse(sessionStorage.getItem(KEPT) || "{}");

  function keep() {
    const values = Object.fromEntries(fields().map((field) => [field.id, field.value]));
    sessionStorage.setItem(KEPT, JSON.stringify({ ...kept(), values }));
  }

  function restore() {
    for (const [id, value] of Object.entries(kept().values || {})) {
      const field = document.getElementById(id);
      if (field && form.contains(field)) field.value = value;
    }
  }

  /** Return a UID from random numbers (PS3.5 B.2); crypto.randomUUID is for HTTPS only. */
  function newUid() {
    const words = crypto.getRandomValues(new Uint32Array(4));
    return "2.25." + words.reduce((sum, word) => (sum << 32n) | BigInt(word), 0n);
  }

  /** Return the study of pictures that have neither number: one for each patient. */
  function study() {
    const of = JSON.stringify([value("PatientID"), patientName(), value("StudyDescription")]);
    const known = kept();
    if (known.study && known.study.of === of) return known.study.uid;
    const made = { uid: newUid(), of };
    sessionStorage.setItem(KEPT, JSON.stringify({ ...known, study: made }));
    return made.uid;
  }

  const value = (id) => document.getElementById(id).value.trim();

  function patientName() {
    return [value("FamilyName"), value("GivenName")].join("^").replace(/\^$/, "");
  }

  function showOwnFields() {
    const template = document.getElementById("template").value;
    for (const group of form.querySelectorAll("[data-template]")) {
      group.hidden = group.dataset.template !== template;
      // A disabled field is neither sent nor checked.
      group.querySelectorAll("input, select").forEach((field) => { field.disabled = group.hidden; });
    }
  }

  // ---- what is sent ----

  function attributes() {
    const data = new FormData();
    for (const field of fields()) {
      const text = field.value.trim();
      if (!text || !field.name || field.disabled) continue;
      if ("date" in field.dataset) data.append(field.name, text.replaceAll("-", ""));
      else if ("twice" in field.dataset) { data.append(field.name, text); data.append(field.name, text); }
      else if ("moment" in field.dataset) addMoment(data, field.name, text);
      else data.append(field.name, text);
    }
    if (patientName()) data.append("PatientName", patientName());
    if (!value("AccessionNumber")) data.append("StudyInstanceUID", study());
    return data;
  }

  function addMoment(data, keyword, text) {
    const [date, time] = text.replaceAll(/[-:]/g, "").split("T");
    data.append(keyword, date + time.padEnd(6, "0"));
    data.append("ContentDate", date);
    data.append("ContentTime", time.padEnd(6, "0"));
  }

  /** Send a picture; resolve to what it was refused, if it was. */
  async function send(picture) {
    const progress = picture.row.querySelector("progress");
    progress.hidden = false;
    progress.setAttribute("aria-label", picture.file.name);
    setState(picture, "sending", says.sending);
    let problem = finish(picture, await post(picture, progress));
    if (problem && (await jpegstow.renewed(problem))) {
      problem = finish(picture, await post(picture, progress));
    }
    progress.hidden = true;
    return problem;
  }

  /** Post a picture once; resolve to the request when it is over, whatever has become of it. */
  function post(picture, progress) {
    const data = attributes();
    data.append("image", picture.file, "photo.jpg"); // a file's own name may name the patient
    const request = new XMLHttpRequest();
    let silence = 0;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => request.abort(), LONGEST_SILENCE);
    };
    progress.value = 0;
    request.upload.addEventListener("progress", (event) => {
      listen();
      if (event.lengthComputable) progress.value = event.loaded / event.total;
    });
    return new Promise((resolve) => {
      request.addEventListener("loadend", () => {
        clearTimeout(silence);
        resolve(request);
      });
      request.open("POST", form.getAttribute("action"));
      request.setRequestHeader("X-CSRF-Token", jpegstow.token);
      request.send(data);
      listen();
    });
  }

  /** Show what has become of a picture; return what it was refused, if it was. */
  function finish(picture, request) {
    if (![200, 201, 202].includes(request.status)) {
      return refused(picture, jpegstow.problem(request.responseText));
    }
    const [told] = JSON.parse(request.responseText).instances;
    if (request.status === 202) {
      setState(picture, "queued", says.queued, `/queue/${told.SOPInstanceUID}`);
    } else {
      const link = `/studies/${told.StudyInstanceUID}/series/${told.SeriesInstanceUID}/instances/${told.SOPInstanceUID}`;
      setState(picture, "stored", request.status === 200 ? says.known : says.stored, link);
    }
    showChanges(picture, told.normalised);
    return null;
  }

  /** Show what was done to a picture, be it only that its Exif was removed. */
  function showChanges(picture, changes) {
    const part = picture.row.querySelector('[data-part="changes"]');
    part.querySelector("ul").replaceChildren(...changes.map((change) => {
      const item = document.createElement("li");
      item.textContent = change;
      return item;
    }));
    part.hidden = !changes.length;
  }

  function refused(picture, problem) {
    // What the store refused is kept: somebody mends it in the queue, and nothing is lost here.
    if (problem.queue) setState(picture, "refused", says.refused, problem.queue);
    else setState(picture, "failed", says.failed);
    const said = marked(problem);
    if (problem.queue) jpegstow.tell(picture.row, { detail: problem.detail, mend: says.refusedMend });
    else jpegstow.tell(picture.row, said.length ? { ...problem, where: said.join(", ") } : problem);
    return { ...problem, isOfForm: said.length > 0 };
  }

  /** Mark the fields that a refusal is about, and return their labels. */
  function marked(problem) {
    if (problem.status !== 400) return [];
    const missing = problem.type === "urn:jpegstow:missing-attribute";
    const names = new Set(((missing ? problem.detail : problem.where) || "").match(/\w+/g));
    if (names.has("PatientName")) names.add("FamilyName").add("GivenName");
    const found = fields().filter((field) => !field.disabled && names.has(field.name || field.id));
    found.forEach((field) => field.setAttribute("aria-invalid", "true"));
    return found.map((field) => field.labels[0].textContent);
  }

  // ---- the list of pictures ----

  function add(files) {
    for (const file of files) {
      const row = document.getElementById("picture").content.firstElementChild.cloneNode(true);
      const picture = { file, row, state: "" };
      row.querySelector('[data-part="name"]').textContent = file.name;
      row.querySelector("img").src = URL.createObjectURL(file);
      row.querySelector('[data-act="remove"]').addEventListener("click", () => remove(picture));
      row.querySelector('[data-act="again"]').addEventListener("click", () => sendAll([picture]));
      list.append(row);
      pictures.push(picture);
      setState(picture, "waiting", says.waiting);
    }
    summarise("");
  }

  function remove(picture) {
    URL.revokeObjectURL(picture.row.querySelector("img").src);
    picture.row.remove();
    pictures.splice(pictures.indexOf(picture), 1);
    count();
    document.getElementById("files").focus();
  }

  function setState(picture, state, text, link) {
    const part = (name) => picture.row.querySelector(`[data-act="${name}"]`);
    picture.state = state;
    picture.row.dataset.state = state;
    picture.row.querySelector('[data-part="state"]').textContent = text;
    jpegstow.tell(picture.row, {});
    const path = (link || "").replace(/^\/v1/, "");
    // Where the pages have no link to it, this person's key doesn't open it.
    part("show").hidden = !document.querySelector(`header a[href="/${path.split("/")[1]}"]`);
    part("show").href = path;
    part("again").hidden = state !== "failed";
    part("remove").hidden = ["sending", "stored", "queued", "refused"].includes(state);
    count();
  }

  const unsent = () => pictures.filter((picture) => ["waiting", "failed"].includes(picture.state));

  function count() {
    const number = unsent().length;
    document.getElementById("count").textContent = number ? `(${number})` : "";
  }

  function summarise(text) {
    document.getElementById("summary").textContent = text;
  }

  let busy = false;

  async function sendAll(chosen) {
    if (busy || !form.reportValidity()) return;
    busy = true;
    jpegstow.calm();
    form.querySelector("[type=submit]").setAttribute("aria-busy", "true");
    form.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
    for (const picture of chosen) {
      const problem = await send(picture);
      if (!problem) continue;
      if (problem.status === 401) jpegstow.alert(problem);
      // The others would only be refused the same.
      if (problem.isOfForm || [401, 403].includes(problem.status) || !navigator.onLine) break;
    }
    showTrouble();
    busy = false;
    form.querySelector("[type=submit]").removeAttribute("aria-busy");
    const done = pictures.filter((picture) => ["stored", "queued"].includes(picture.state)).length;
    summarise(says.summary.replace("{done}", done).replace("{all}", pictures.length));
  }

  /** Bring what somebody has to look at into view: a field, else a picture; a notice is there already. */
  function showTrouble() {
    const field = form.querySelector('[aria-invalid="true"]');
    if (field) field.focus();
    else if (jpegstow.isCalm()) {
      const trouble = '[data-state="failed"], [data-state="refused"]';
      list.querySelector(trouble)?.scrollIntoView({ block: "nearest" });
    }
  }

  // ---- what a person does ----

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!unsent().length) summarise(says.none);
    else sendAll(unsent());
  });

  form.addEventListener("input", (event) => {
    event.target.removeAttribute("aria-invalid");
    keep();
  });

  document.getElementById("template").addEventListener("change", showOwnFields);

  for (const id of ["camera", "files"]) {
    const input = document.getElementById(id);
    input.addEventListener("change", () => {
      add(input.files);
      input.value = ""; // so that the same file can be chosen again
    });
  }

  document.getElementById("next").addEventListener("click", async () => {
    if (busy) return;
    if (unsent().length && !(await jpegstow.ask(says.nextAsk, says.next))) return;
    sessionStorage.removeItem(KEPT);
    const template = value("template");
    form.reset();
    document.getElementById("template").value = template; // the next patient is seen by the same people
    keep();
    showOwnFields();
    pictures.splice(0).forEach((picture) => {
      URL.revokeObjectURL(picture.row.querySelector("img").src);
      picture.row.remove();
    });
    count();
    summarise("");
    document.getElementById("PatientID").focus();
  });

  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer || !event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      document.getElementById("drop").classList.toggle("over", name === "dragover");
      if (name === "drop") add(event.dataTransfer.files);
    });
  }

  window.addEventListener("beforeunload", (event) => {
    if (unsent().length || busy) event.preventDefault();
  });

  restore();
  showOwnFields();
})();
