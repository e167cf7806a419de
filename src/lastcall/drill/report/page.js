// Comfort only: the page says everything without it.
(() => {
  "use strict";
  const box = document.getElementById("timeline");

  // The command is copied without a network; where there is no clipboard, it is selected.
  const command = document.getElementById("command");
  if (command) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      let copied = false;
      try {
        await navigator.clipboard.writeText(command.textContent);
        copied = true;
      } catch {
        const range = document.createRange();
        range.selectNodeContents(command);
        const selection = getSelection();
        selection.removeAllRanges();
        selection.addRange(range);
        copied = document.execCommand("copy");
      }
      button.textContent = copied ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    button.setAttribute("aria-live", "polite");
    command.parentElement.append(button);
  }
  if (!box) return;

  // Details follow the pointer, and the arrow keys once the timeline has the focus.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const told = new Map();
  for (const title of box.querySelectorAll("title")) {
    told.set(title.parentElement, title.textContent);
    title.remove();
  }
  const rows = [...box.querySelectorAll(".r")];
  let chosen = -1;
  const hide = () => {
    tip.hidden = true;
    if (chosen >= 0) rows[chosen].classList.remove("on");
  };
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${y + 18 + height > innerHeight ? Math.max(8, y - height - 12) : y + 18}px`;
  };
  const owner = (node) => {
    while (node && node !== box) {
      if (told.has(node)) return node;
      node = node.parentElement;
    }
    return null;
  };
  box.addEventListener("pointermove", (event) => {
    const node = owner(event.target);
    if (node) show(told.get(node), event.clientX, event.clientY);
    else hide();
  });
  box.addEventListener("pointerleave", hide);
  addEventListener("scroll", () => { if (document.activeElement !== box) hide(); }, { passive: true });
  const choose = (index) => {
    hide();
    chosen = index;
    const row = rows[chosen];
    row.classList.add("on");
    row.scrollIntoView({ block: "nearest" });
    const place = row.getBoundingClientRect();
    show(told.get(row), place.left + place.width / 2, place.bottom - 12);
  };
  if (rows.length) {
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Timeline: the arrow keys go from connection to connection");
    box.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) choose((chosen + step + rows.length + (chosen < 0 && step < 0 ? 1 : 0)) % rows.length);
      else if (event.key === "Home") choose(0);
      else if (event.key === "End") choose(rows.length - 1);
      else if (event.key === "Escape") hide();
      else return;
      event.preventDefault();
    });
    box.addEventListener("blur", hide);
  }

  // Wider: the timeline scrolls inside its own box, and the stop stays in sight.
  const zoom = document.createElement("div");
  zoom.className = "zoom";
  zoom.setAttribute("role", "group");
  zoom.setAttribute("aria-label", "How wide the timeline is drawn");
  zoom.append("Time axis");
  const buttons = [1, 4, 16].map((times) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = times === 1 ? "all" : `${times}\u00d7`;
    button.setAttribute("aria-label", times === 1 ? "all of it" : `${times} times as wide`);
    button.setAttribute("aria-pressed", String(times === 1));
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      box.classList.toggle("zoomed", times > 1);
      box.querySelector(".lanes").style.width = `${times * 100}%`;
      const stop = box.querySelector(".grid .s");
      const at = stop.getBoundingClientRect().left - box.getBoundingClientRect().left;
      box.scrollLeft += at - box.clientWidth / 2;
    });
    return button;
  });
  zoom.append(...buttons);
  box.before(zoom);
})();
