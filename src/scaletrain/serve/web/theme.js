// The colours that were chosen here before; loaded ahead of the page, so that it does not flash in the others.
try {
  const chosen = localStorage.getItem("scaletrain.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // The browser keeps nothing for this site: its own light or dark is used, and app.js says what to do.
}
