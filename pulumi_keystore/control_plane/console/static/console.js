// What JavaScript adds: times in the reader's zone, pages that follow what happens, and the bars by key and mouse.
"use strict";

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const hour = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const minute = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

function localTimes(root) {
  for (const time of root.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    const axis = time.closest(".axis");
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

function prepare(root) { localTimes(root); bars(root); }

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
  await new Promise((resolve) => setTimeout(resolve, Math.max(wait, 500)));
  // Somebody who reads the bars, or uses a button, is not disturbed.
  if (!document.hidden && !place.contains(document.activeElement)) {
    try {
      const answer = await fetch(place.dataset.live, { credentials: "same-origin", redirect: "manual" });
      age(place, answer.ok || answer.type === "opaqueredirect");
      if (answer.ok) {
        const made = new DOMParser().parseFromString(await answer.text(), "text/html");
        prepare(made.body);
        const wasRunning = place.querySelector("progress") !== null;
        place.replaceChildren(...made.body.childNodes);
        bars(place);
        // The banner belongs to the whole page.
        if (wasRunning !== (place.querySelector("progress") !== null)) location.reload();
      } else if (answer.type === "opaqueredirect") {
        location.reload();
        return;
      }
    } catch { age(place, false); }
  }
  follow(place);
}

prepare(document);
document.getElementById("problem")?.focus();
const place = document.querySelector("[data-live]");
if (place) follow(place);
for (const form of document.querySelectorAll("form[data-slow]")) {
  form.addEventListener("submit", () => {
    const button = form.querySelector("button.primary, button");
    button.textContent = form.dataset.slow;
    button.disabled = true;
  });
}
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
document.addEventListener("keydown", (event) => {
  const menu = document.querySelector(".menu[open]");
  if (event.key === "Escape" && menu) { menu.open = false; menu.querySelector("summary").focus(); }
});
document.addEventListener("click", (event) => {
  const menu = document.querySelector(".menu[open]");
  if (menu && !menu.contains(event.target)) menu.open = false;
});
