// Browsers let no page that is opened from disk search: it says so, and how to get there.
"use strict";
if (location.protocol === "file:") {
  for (const field of document.querySelectorAll(".md-search__input")) {
    field.placeholder = "Search needs a server: python3 -m http.server";
    field.disabled = true;
  }
}
