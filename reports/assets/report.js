// The page is complete without this: it only filters, sorts, copies, and opens what is folded before printing.
(() => {
  "use strict";
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const form = document.getElementById("tools");
  const box = document.getElementById("filter");

  if (form) {
    form.hidden = false;
    const cards = all(".card");
    const rows = all(".layers tbody tr");
    const matches = document.getElementById("matches");
    const text = new Map([...cards, ...rows].map((element) => [element, element.textContent.toLowerCase()]));
    const update = () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      const levels = new Set(all("input[name=level]:checked", form).map((input) => input.value));
      const fits = (element) => words.every((word) => text.get(element).includes(word));
      let shown = 0;
      for (const card of cards) {
        const visible = levels.has(card.dataset.level) && fits(card);
        card.classList.toggle("nothing", !visible);
        shown += visible;
      }
      for (const row of rows) row.classList.toggle("nothing", !fits(row));
      const narrowed = words.length || shown < cards.length;
      matches.textContent = narrowed ? `${shown} of ${cards.length} findings` : "";
    };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => {
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        box.focus();
      } else if (event.key === "Escape" && document.activeElement === box) {
        box.value = "";
        update();
        box.blur();
      }
    });
  }

  const value = (row, index, kind) => {
    const cell = row.cells[index];
    const content = cell.dataset.value ?? cell.textContent.trim();
    if (kind !== "number") return content.toLowerCase();
    const number = parseFloat(content.replaceAll(",", ""));
    return Number.isNaN(number) ? -Infinity : number;
  };
  for (const head of all("th[data-sort]")) {
    const body = head.closest("table").tBodies[0];
    const original = Array.from(body.rows);
    head.tabIndex = 0;
    const sort = () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" };
      const order = next[head.getAttribute("aria-sort") ?? "none"];
      for (const other of all("th[aria-sort]", head.parentNode)) other.removeAttribute("aria-sort");
      const kind = head.dataset.sort;
      const sorted = original.slice();
      if (order !== "none") {
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
        sorted.sort((a, b) => sign * compare(value(a, head.cellIndex, kind), value(b, head.cellIndex, kind)));
      }
      body.append(...sorted);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort();
      }
    });
  }

  if (navigator.clipboard) {
    for (const snippet of all(".fix .snippet")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(snippet.textContent);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      });
      snippet.previousElementSibling.append(button);
    }
  }

  // a link to something inside a folded part opens it
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  };
  window.addEventListener("hashchange", open);
  open();
  window.addEventListener("beforeprint", () => all("details").forEach((part) => (part.open = true)));
})();
