// Browsers let no page that is opened from disk search, and the theme hides its field there: say so, and how to search.
"use strict";
if (location.protocol === "file:") {
  const said = document.createElement("p");
  said.style.cssText = "margin: 0 1em; font-size: .7rem";
  said.append("To search, serve this folder: python3 -m http.server");
  document.querySelector(".md-header__inner").append(said);
}
