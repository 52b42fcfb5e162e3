// The slider: shows each panel's latest pictures up to the chosen iteration. Without scripts the last ones stay.
const GLYPH = { right: "✓", wrong: "✗" };

function show(gallery, data, stop) {
  gallery.querySelector("output").textContent = data.iterations[stop];
  for (const figure of gallery.querySelectorAll("figure")) {
    const cell = [...figure.parentNode.children].indexOf(figure);
    figure.querySelectorAll(".panel").forEach((panel, i) => {
      const { css, marks, at } = data.panels[i];
      const word = marks[at[stop]][cell];
      const mark = panel.querySelector(".verdict");
      panel.querySelector(".cell").className = "cell " + css[at[stop]];
      mark.className = "verdict " + (word in GLYPH ? word : "value");
      mark.textContent = word in GLYPH ? GLYPH[word] : word;
      mark.title = word;
      mark.setAttribute("aria-label", word);
    });
  }
}

for (const gallery of document.querySelectorAll(".gallery")) {
  const slider = gallery.querySelector(".slider");
  if (!slider) continue;
  const data = JSON.parse(gallery.querySelector("script").textContent);
  const range = slider.querySelector("input");
  slider.hidden = false;
  range.addEventListener("input", () => show(gallery, data, Number(range.value)));
  show(gallery, data, Number(range.value)); // a reload may keep an earlier position
}
