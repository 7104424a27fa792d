// Before anything is drawn: the colours that were chosen here, instead of those of the system.
"use strict";
try { document.documentElement.dataset.theme = localStorage.getItem("theme") || ""; } catch { /* not kept here */ }
