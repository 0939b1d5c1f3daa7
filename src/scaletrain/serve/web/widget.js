/**
 * A chat for any site, by one script tag; docs/web_chat.md says how.
 *
 *     <script src="https://HOST/widget.js" data-title="Ask us" data-model="support" async></script>
 *
 * It makes a button in a shadow root, so that the site's styles and the chat's do not touch; the chat itself is loaded
 * when the button is pressed for the first time. A server that does not allow the site gets no button.
 */
(async () => {
  const script = /** @type {HTMLScriptElement} */ (document.currentScript);
  const home = new URL(".", script.src);
  const title = script.dataset.title || "Chat";

  /** @param {string} name */
  const styleSheet = async (name) => {
    const response = await fetch(new URL(name, home));
    if (!response.ok) throw new Error(`${name}: status ${response.status}`);
    const sheet = new CSSStyleSheet(); // A site's policy on inline styles does not apply to it.
    sheet.replaceSync(await response.text());
    return sheet;
  };

  try {
    const [{ element, icon }, ...sheets] = await Promise.all([
      import(new URL("dom.js", home).href),
      styleSheet("text.css"),
      styleSheet("widget.css"),
    ]);
    const host = element("scaletrain-chat");
    const shadow = host.attachShadow({ mode: "open" });
    shadow.adoptedStyleSheets = sheets;
    const button = element("button", { type: "button", className: "launch", "aria-expanded": "false" }, icon("chat"), title);
    button.onclick = async () => {
      button.disabled = true;
      const { Panel } = await import(new URL("widget_panel.js", home).href);
      const panel = new Panel(home, { ...script.dataset, title }, button);
      shadow.append(panel.root);
      button.onclick = () => panel.toggle();
      button.disabled = false;
      panel.toggle();
    };
    shadow.append(button);
    document.body.append(host);
  } catch (error) {
    console.error(`${home.host} gives this site no chat; is it started with --allow-origin ${location.origin}?`, error);
  }
})();
