"use strict";
// The page is complete without this script. It adds values at the pointer, switches for arms, sorting and the slider.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // A link to a collapsed chapter opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const chapter = target && target.querySelector(":scope > details.chapter");
    if (chapter) chapter.open = true;
  };
  addEventListener("hashchange", open);
  open();

  // Arms on and off.
  for (const panel of all("details.arms")) {
    panel.hidden = false;
    panel.addEventListener("change", () => {
      for (const box of all("input", panel))
        for (const part of all(`[data-arm="${box.value}"]`)) part.classList.toggle("off", !box.checked);
    });
    panel.addEventListener("keydown", event => {
      if (event.key === "Escape") { panel.open = false; panel.querySelector("summary").focus(); }
    });
    addEventListener("click", event => { if (!panel.contains(event.target)) panel.open = false; });
  }

  // Values at the pointer, and with the arrow keys.
  const reading = document.getElementById("reading");
  const names = all("details.arms label bdi").map(name => name.textContent);
  for (const data of all("script.values")) {
    const figure = data.parentElement, svg = figure.querySelector("svg.plot");
    if (!svg) continue;
    const points = JSON.parse(data.textContent);
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", 5);
    let at = -1;
    const shown = index => !svg.querySelector(`[data-arm="${points[index][2]}"].off`);
    const show = index => {
      at = index;
      const [x, y, arm, text] = points[index], around = svg.getBoundingClientRect();
      const scale = around.width / svg.viewBox.baseVal.width;
      ring.setAttribute("cx", x);
      ring.setAttribute("cy", y);
      svg.append(ring);
      reading.textContent = names[arm] ? `${names[arm]}: ${text}` : text;
      reading.hidden = false;
      const left = Math.min(around.left + x * scale + 12, innerWidth - reading.offsetWidth - 8);
      reading.style.left = `${Math.max(left, 8) + scrollX}px`;
      reading.style.top = `${around.top + y * scale - reading.offsetHeight - 12 + scrollY}px`;
    };
    const hide = () => { reading.hidden = true; ring.remove(); at = -1; };
    svg.addEventListener("pointermove", event => {
      const around = svg.getBoundingClientRect(), scale = around.width / svg.viewBox.baseVal.width;
      const x = (event.clientX - around.left) / scale, y = (event.clientY - around.top) / scale;
      let best = -1, least = 24 ** 2;
      points.forEach((point, index) => {
        const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
        if (distance < least && shown(index)) { least = distance; best = index; }
      });
      if (best >= 0) show(best); else hide();
    });
    svg.addEventListener("pointerleave", hide);
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      for (let index = at + step, tried = 0; tried < points.length; index += step, tried++) {
        const next = (index + points.length) % points.length;
        if (shown(next)) { show(next); break; }
      }
    });
  }

  // Tables sorted by a column.
  const key = cell => {
    const text = cell.textContent.replace(/[\s\u00a0]/g, "").replace(/\u2212/g, "-");
    const number = /^[<>~+]*(-?[\d.]+(?:e[+-]?\d+)?)/i.exec(text);
    return number ? parseFloat(number[1]) : null;
  };
  for (const table of all("table.sortable")) {
    const rows = all("tbody tr", table);
    if (rows.length < 2) continue;
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        all("thead th", table).forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = head.classList.contains("number");
        const compare = (a, b) => {
          const [one, two] = [a.cells[column], b.cells[column]];
          if (!numeric) return one.textContent.localeCompare(two.textContent, undefined, { numeric: true });
          const [x, y] = [key(one), key(two)];
          return x === null ? (y === null ? 0 : Infinity) : y === null ? -Infinity : x - y;
        };
        const sorted = [...rows].sort((a, b) => {
          const order = compare(a, b);
          return Number.isFinite(order) && down ? -order : order === Infinity ? 1 : order === -Infinity ? -1 : order;
        });
        table.tBodies[0].append(...sorted);
      });
    });
  }

  // The gain at each target.
  for (const box of all(".ladder")) {
    box.hidden = false;
    const slider = box.querySelector("input"), texts = all("[aria-live] > p", box);
    slider.addEventListener("input", () => texts.forEach((text, index) => { text.hidden = index !== +slider.value; }));
  }

  // Commands are copied with a button.
  for (const code of all(".command code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    code.after(" ", button);
    button.addEventListener("click", async () => {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied"; }
      catch { button.textContent = "Selected"; }
    });
  }

  // Print shows everything.
  addEventListener("beforeprint", () => all("details").forEach(part => { if (!part.classList.contains("arms")) part.open = true; }));
})();
