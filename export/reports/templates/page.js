
"use strict";

// Pictures that can be filtered: shows those that belong to what every select of the sheet says.
function watchSheet(sheet) {
  const controls = sheet.querySelector("[data-controls]");
  const cards = [...sheet.querySelectorAll(".card")];
  const count = sheet.querySelector("[data-count]");
  const filters = [...sheet.querySelectorAll("[data-filter]")];

  function filter() {
    let shown = 0;
    for (const card of cards) {
      card.hidden = !filters.every((select) => {
        const values = (card.getAttribute(`data-${select.dataset.filter}`) || "").split(" ");
        return select.value === "" || values.includes(select.value);
      });
      shown += card.hidden ? 0 : 1;
    }
    const text = `${shown} of ${cards.length} pictures`;
    if (count.textContent !== text) count.textContent = text;
  }

  // A slider sets a variable of the style sheet for this sheet alone.
  function slide(selector, variable, value, text) {
    const slider = sheet.querySelector(selector);
    if (!slider) return;
    const output = slider.parentElement.querySelector("output");
    const set = () => {
      sheet.style.setProperty(variable, value(slider));
      output.textContent = text(slider);
      slider.setAttribute("aria-valuetext", text(slider));
    };
    slider.addEventListener("input", set);
    set();
  }

  for (const select of filters) select.addEventListener("change", filter);
  slide("[data-opacity]", "--opacity", (s) => s.value / 100, (s) => `${s.value}%`);
  slide("[data-width]", "--card", (s) => `${s.value}px`, (s) => `${s.value} px`);
  controls.hidden = false;
  filter();
}

for (const sheet of document.querySelectorAll("[data-sheet]")) watchSheet(sheet);

// On paper nothing can be unfolded, so everything is.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
  folded = [];
});
