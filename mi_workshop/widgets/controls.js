// Beside ipywidgets' controls, which lack three things: JupyterLab takes arrow keys and Enter away from a list or a button, a slider has no name, and
// no live region says what changed. Lab looks for the mark on the focused element alone, so each control gets it.
function render({ el }) {
  const live = Object.assign(document.createElement("div"), { role: "status", style: "position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)" });
  el.append(live);
  let box, told, frame;
  const mend = () => {
    for (const node of box.querySelectorAll("select, input, button, .noUi-handle, .widget-readout")) {
      node.dataset.lmSuppressShortcuts = "true";
      if (node.title === "null") node.removeAttribute("title");
      const icon = node.querySelector("i.fa")?.className.match(/fa-(play|pause|stop|retweet)/);
      if (icon) node.ariaLabel = icon[1].replace("retweet", "repeat");
      if (node.matches(".widget-readout")) node.role = "textbox";
      if (node.matches(".noUi-handle, .widget-readout")) node.ariaLabel = node.closest(".widget-slider")?.querySelector(".widget-label")?.textContent || "value";
    }
    const text = [...box.querySelectorAll(".mi-said")].map((p) => p.textContent).join(" ");
    if (told !== undefined && told !== text) live.textContent = text;
    told = text;
  };
  const watch = new MutationObserver(mend), begin = () => {
    for (let up = el; (up = up.parentElement?.closest(".widget-box")); ) box = up; // the outermost
    if (box && el.isConnected) { watch.observe(box, { childList: true, subtree: true, attributeFilter: ["class"] }); mend(); } else frame = requestAnimationFrame(begin);
  };
  begin();
  return () => { cancelAnimationFrame(frame); watch.disconnect(); };
}
export default { render };
