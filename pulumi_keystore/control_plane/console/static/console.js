// What JavaScript adds: times in the reader's zone, pages that follow what happens, and the bars by key and mouse.
"use strict";

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const hour = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const minute = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

function localTimes(root) {
  for (const time of root.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    const axis = time.closest(".axis");
    if (time.className === "day") {
      // It stays short; when exactly is in its title.
      time.title = clock.format(moment);
      continue;
    }
    time.title = time.textContent;
    time.textContent = (axis ? minute : clock).format(moment);
  }
}

function bars(root) {
  for (const row of root.querySelectorAll(".bars")) {
    const detail = row.parentElement.querySelector(".bar-detail");
    const all = [...row.children];
    let at = -1;
    const show = (index) => {
      if (at >= 0) all[at].classList.remove("at");
      at = index;
      if (at < 0) { detail.textContent = ""; return; }
      all[at].classList.add("at");
      const begin = new Date(new Date(row.dataset.begin).getTime() + at * 1000 * Number(row.dataset.bucket));
      detail.textContent = `${(Number(row.dataset.bucket) > 60 ? hour : minute).format(begin)}: ${all[at].title}`;
    };
    row.addEventListener("mousemove", (event) => {
      const box = row.getBoundingClientRect();
      show(Math.min(all.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * all.length))));
    });
    row.addEventListener("mouseleave", () => show(-1));
    row.addEventListener("focus", () => show(all.length - 1));
    row.addEventListener("blur", () => show(-1));
    row.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -all.length, End: all.length };
      if (!(event.key in steps)) return;
      event.preventDefault();
      show(Math.min(all.length - 1, Math.max(0, at + steps[event.key])));
    });
  }
}

// Long values are copied, not typed.
function copies(root) {
  if (!navigator.clipboard) return;
  for (const value of root.querySelectorAll(".facts dd > code")) {
    const button = document.createElement("button");
    const name = value.closest("div").querySelector("dt").textContent;
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy ${name}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(value.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; button.blur(); }, 2000);
    });
    value.after(button);
  }
}

// The colours of the system, or the others.
function themes() {
  const root = document.documentElement;
  const button = document.createElement("button");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.type = "button";
  button.className = "quiet";
  button.title = "Switch between light and dark";
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept then */ }
    label();
  });
  label();
  document.getElementById("tools").prepend(button);
}

// What a tab shows of a keystore that is offline, while another page is read.
function showState(place) {
  const offline = place.firstElementChild?.dataset.offline !== undefined;
  document.title = (offline ? "Offline: " : "") + document.title.replace(/^Offline: /, "");
  document.querySelector("link[rel=icon]").href = `/console/static/icon${offline ? "-offline" : ""}.svg`;
}

// What takes long says so, and is not sent twice.
function slow(root) {
  for (const form of root.querySelectorAll("form[data-slow]")) {
    form.addEventListener("submit", (event) => {
      event.submitter.textContent = form.dataset.slow;
      event.submitter.disabled = true;
    });
  }
}

function prepare(root) { localTimes(root); bars(root); copies(root); slow(root); }

let refreshed = new Date();

// Who reads a page that does not follow any more shall not take it for the present.
function age(place, current) {
  const told = document.getElementById("stale");
  if (current) { refreshed = new Date(); told?.remove(); return; }
  if (told) return;
  const notice = document.createElement("p");
  notice.id = "stale";
  notice.className = "problem";
  notice.setAttribute("role", "status");
  notice.textContent = `Not refreshed since ${minute.format(refreshed)}: the service does not answer.`;
  place.before(notice);
}

async function follow(place) {
  const wait = Number(place.firstElementChild?.dataset.every || 10) * 1000;
  // A page that nobody sees goes on once a minute, for its tab, and at once when it is seen again.
  await new Promise((resolve) => {
    const timer = setTimeout(go, Math.max(wait, document.hidden ? 60000 : 500));
    function go() {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", go);
      resolve();
    }
    document.addEventListener("visibilitychange", go);
  });
  // Somebody who reads the bars, or uses a button, is not disturbed.
  if (!place.contains(document.activeElement) && !place.querySelector("button:disabled")) {
    try {
      const answer = await fetch(place.dataset.live, { credentials: "same-origin", redirect: "manual" });
      // The session has ended, or what is shown was deleted: the page says so. (The answer to a form is not asked for again.)
      if (answer.type === "opaqueredirect" || answer.status === 404) {
        location.assign(place.dataset.live.replace(/\/live(?=\?|$)/, ""));
        return;
      }
      age(place, answer.ok);
      if (answer.ok) {
        const made = new DOMParser().parseFromString(await answer.text(), "text/html");
        prepare(made.body);
        const wasRunning = place.querySelector("progress") !== null;
        place.replaceChildren(...made.body.childNodes);
        showState(place);
        // The banner belongs to the whole page.
        if (wasRunning !== (place.querySelector("progress") !== null)) location.reload();
      }
    } catch { age(place, false); }
  }
  follow(place);
}

themes();
prepare(document);
document.getElementById("problem")?.focus();
const place = document.querySelector("[data-live]");
if (place) follow(place);
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
document.addEventListener("keydown", (event) => {
  const menu = document.querySelector(".menu[open]");
  if (event.key === "Escape" && menu) { menu.open = false; menu.querySelector("summary").focus(); }
});
document.addEventListener("click", (event) => {
  const menu = document.querySelector(".menu[open]");
  if (menu && !menu.contains(event.target)) menu.open = false;
});
