// The script of the page: shows the panel of the chosen portfolio and model, and draws its figures when first shown.
"use strict";
(() => {
  const panels = [...document.querySelectorAll(".panel")];
  const choices = [...document.querySelectorAll("select[data-choice]")];
  const drawn = new Set();

  const draw = (panel) => {
    const data = panel.querySelector('script[type="application/json"]');
    if (data === null || drawn.has(panel)) return;
    drawn.add(panel);
    const { document: figures, roots } = JSON.parse(data.textContent);
    Bokeh.embed.embed_items({ panel: figures }, [{ docid: "panel", roots, root_ids: Object.keys(roots) }]);
  };

  const show = () => {
    for (const panel of panels) {
      panel.hidden = !choices.every((choice) => panel.dataset[choice.dataset.choice] === choice.value);
      if (!panel.hidden) draw(panel);
    }
  };

  for (const choice of choices) choice.addEventListener("change", show);
  show();
})();
