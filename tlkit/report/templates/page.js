"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // The theme: the system's, until the switch says otherwise; remembered where the browser can.
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const tell = () => button.setAttribute("aria-pressed", String(isDark()));
  try {
    const kept = localStorage.getItem("tlkit-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* a page from a file may have no storage */ }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("tlkit-theme", root.dataset.theme); } catch { /* likewise */ }
    tell();
  });
  dark.addEventListener("change", tell);
  tell();

  // Photos of a cell: without this script the links lead to them all the same.
  const cells = document.getElementById("cells");
  let opener = null;
  const close = () => {
    for (const one of document.querySelectorAll(".cell.open")) one.classList.remove("open");
    for (const one of document.querySelectorAll("[data-cell][aria-expanded=true]")) one.setAttribute("aria-expanded", "false");
  };
  for (const link of document.querySelectorAll("[data-cell]")) {
    const cell = document.getElementById(link.hash.slice(1));
    if (!cell) continue;
    link.setAttribute("aria-expanded", "false");
    link.addEventListener("click", (event) => {
      event.preventDefault();
      close();
      cells.classList.add("chosen");
      cell.classList.add("open");
      link.setAttribute("aria-expanded", "true");
      opener = link;
      cell.focus({ preventScroll: true });
      cell.scrollIntoView({ block: "nearest" });
    });
  }
  const back = () => { close(); if (opener) opener.focus(); opener = null; };
  for (const one of document.querySelectorAll("[data-close]")) {
    one.addEventListener("click", (event) => { event.preventDefault(); back(); });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.querySelector(".cell.open")) back();
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const at = document.activeElement && document.activeElement.closest(".matrix td");
    if (!step || !at) return;
    // To the next cell in that direction that holds anything.
    const body = at.closest("tbody");
    let row = at.parentElement.rowIndex - 1, column = at.cellIndex;
    for (;;) {
      row += step[0];
      column += step[1];
      const next = body.rows[row] && body.rows[row].cells[column];
      if (!next || next.tagName !== "TD") return;
      const link = next.querySelector("a");
      if (link) { event.preventDefault(); link.focus(); return; }
    }
  });

  // Tables that can be sorted by a column.
  for (const table of document.querySelectorAll(".sortable")) {
    const value = (row, column) => {
      const text = row.cells[column].textContent.trim();
      const number = parseFloat(text);
      return column && !Number.isNaN(number) ? number : column ? -1 : text;
    };
    for (const head of table.tHead.rows[0].cells) {
      const inner = document.createElement("button");
      inner.type = "button";
      inner.textContent = head.textContent;
      head.replaceChildren(inner);
      inner.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending", column = head.cellIndex;
        for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].sort((one, other) => {
          const [a, b] = [value(one, column), value(other, column)];
          const order = typeof a === "string" ? a.localeCompare(b) : a - b;
          return up ? order : -order;
        });
        table.tBodies[0].append(...rows);
      });
    }
  }

  // What is closed on the screen is open on paper.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
