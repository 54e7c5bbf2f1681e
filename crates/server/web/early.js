// Theme and language, set before the first paint: as a module it would come too late and the page would flash.
(() => {
  "use strict";
  const read = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // Storage can be forbidden; the page works without it.
    }
  };
  const root = document.documentElement;
  const theme = read("crossmodal.theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const chosen = read("crossmodal.language");
  const wanted = chosen ? [chosen] : navigator.languages || [navigator.language];
  const known = wanted.map((tag) => String(tag).slice(0, 2).toLowerCase()).find((tag) => tag === "en" || tag === "fr");
  root.lang = known || "en";
})();
