"use strict";
const value = (row, column) => {
  const text = row.cells[column].textContent;
  const number = Number(text.replace(/[,+ %]/g, ""));
  return text !== "" && Number.isFinite(number) ? number : text;
};
const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;
  return a.localeCompare(b);
};
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const numbers = head.cellIndex > 0 && !head.closest("table").classList.contains("words");
    const before = head.getAttribute("aria-sort");
    const down = before === "none" ? numbers : before === "ascending";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, head.cellIndex), row]);
    rows.sort((a, b) => (down ? compare(b[0], a[0]) : compare(a[0], b[0])));
    body.append(...rows.map((row) => row[1]));
  });
}
for (const map of document.querySelectorAll("svg.map")) {
  const boxes = [...map.querySelectorAll("g")];
  const told = map.closest("section").querySelector("output");
  const tell = (box) => { told.textContent = box.getAttribute("aria-label"); };
  const go = (from, to) => {
    from.setAttribute("tabindex", "-1");
    to.setAttribute("tabindex", "0");
    to.focus();
  };
  boxes.forEach((box, at) => {
    box.addEventListener("focus", () => tell(box));
    box.addEventListener("pointerenter", () => tell(box));
    box.addEventListener("keydown", (event) => {
      const to = {
        ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1,
        Home: 0, End: boxes.length - 1,
      }[event.key];
      if (to === undefined || !boxes[to]) return;
      event.preventDefault();
      go(box, boxes[to]);
    });
  });
}
