"use strict";
// What works better with a script: keys, the appearance of a page that changed in place, and a status page that stays
// up to date. Everything else works without.

function said(text) {
  const live = document.getElementById("live");
  if (live && text) live.textContent = text;
}

function typing(target) {
  return target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]");
}

document.addEventListener("keydown", (event) => {
  const field = event.target.closest && typing(event.target);
  if (field) {
    if (event.key === "Escape") {
      field.blur();
      document.getElementById("main").focus();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && field.dataset.send) {
      event.preventDefault();
      document.querySelector(field.dataset.send).click();
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.key.length !== 1) return;
  const found = document.querySelector(`#content [data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!found) return;
  event.preventDefault();
  if (found.matches("textarea")) {
    found.focus();
    found.setSelectionRange(found.value.length, found.value.length);
  } else {
    found.click();
  }
});

document.addEventListener("htmx:after:swap", () => {
  const notice = document.querySelector("#content .notice");
  const place = document.querySelector("#content [data-focus]");
  said([notice && notice.textContent, place && place.textContent].filter(Boolean).join(" "));
  if (place) place.focus();
});

// A live region speaks of what changes in it, not of what it holds when the page comes.
const notice = document.getElementById("notice");
if (notice) setTimeout(() => said(notice.textContent), 200);

const now = document.querySelector("[data-refresh]");
if (now) {
  setInterval(async () => {
    const old = document.getElementById("now");
    if (!old || document.hidden || old.contains(document.activeElement)) return;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!answer || !answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("now");
    const calls = fresh && fresh.querySelector(".calls");
    const before = old.querySelector(".calls");
    if (!fresh) return;
    if (calls && calls.textContent !== (before && before.textContent)) said(calls.textContent.replace(/\s+/g, " "));
    old.replaceWith(fresh);
  }, Number(now.dataset.refresh) * 1000);
}
