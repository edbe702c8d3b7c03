"use strict";
(() => {
  const root = document.documentElement;
  const wanted = new URLSearchParams(location.search);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // A file opened from disk may have no storage: then a choice lasts as long as the page.
  const remember = (key, value) => { try { localStorage.setItem("lianzhi-" + key, value); } catch { /* none */ } };
  const recall = (key) => { try { return localStorage.getItem("lianzhi-" + key); } catch { return null; } };

  const setLanguage = (language) => { root.lang = language === "zh" ? "zh" : "en"; };
  const setTheme = (theme) => { if (theme === "dark" || theme === "light") root.dataset.theme = theme; };

  setLanguage(wanted.get("lang") || recall("lang") || (navigator.language || "").slice(0, 2).toLowerCase());
  setTheme(wanted.get("theme") || recall("theme"));

  document.getElementById("language").addEventListener("click", () => {
    setLanguage(root.lang === "zh" ? "en" : "zh");
    remember("lang", root.lang);
  });
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    setTheme(now === "dark" ? "light" : "dark");
    remember("theme", root.dataset.theme);
  });
  document.getElementById("print").addEventListener("click", () => window.print());
  document.getElementById("tools").hidden = false;

  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1500);
    });
  }

  // A scrolling region is a stop for the keyboard only where it does scroll.
  const regions = document.querySelectorAll(".scroll, pre");
  const stops = () => regions.forEach((region) => { region.tabIndex = region.scrollWidth > region.clientWidth ? 0 : -1; });
  stops();
  addEventListener("resize", stops);

  // The heads of a table whose cells have keys sort it; rows without a key stay last.
  for (const table of document.querySelectorAll("table[data-sorts]")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      const key = (row) => row.cells[column].dataset.key;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows], known = rows.filter((row) => key(row) !== undefined);
        const numbers = known.every((row) => Number.isFinite(Number(key(row))));
        const compare = (a, b) => numbers ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true });
        known.sort((a, b) => down ? compare(b, a) : compare(a, b));
        body.append(...known, ...rows.filter((row) => key(row) === undefined));
      });
    });
    table.classList.add("sorts");
  }

  // Paper cannot be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
})();
