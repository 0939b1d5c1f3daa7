// Shows the values of a chart's lines under the pointer, and under the arrow keys where a chart has the focus.
"use strict";
{
  const scales = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]];

  const number = (value) => {
    const [bound, unit] = scales.find(([least]) => Math.abs(value) >= least) ?? [1, ""];
    return Number((value / (unit === "k" ? 1e3 : bound)).toPrecision(5)) + unit;
  };
  const written = {
    number,
    integer: number,
    percent: (value) => `${Number((100 * value).toPrecision(4))}%`,
    dollars: (value) => `$${value >= 1 ? value.toFixed(2) : Number(value.toPrecision(3))}`,
    bytes: (value) => (value >= 1e9 ? `${(value / 1e9).toFixed(2)} GB` : `${(value / 1e6).toFixed(1)} MB`),
    seconds: (value) => `${Number(value.toPrecision(4))} s`,
  };
  const place = (value, unit) => (unit === "step" ? `step ${Math.round(value)}` : `${Number(value.toPrecision(4)).toLocaleString("en")} ${unit}`);

  const element = (name, className, text) => {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text ?? "";
    return made;
  };

  const isShown = (node) => getComputedStyle(node).display !== "none";

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.picture = figure.querySelector("svg");
      const pair = (name) => this.picture.dataset[name].split(" ").map(Number);
      [this.low, this.high] = pair("from");
      [this.first, this.last] = pair("to");
      this.width = this.picture.viewBox.baseVal.width;
      this.values = new Map();
      this.tip = element("div", "tip");
      this.tip.setAttribute("role", "status");
      this.tip.hidden = true;
      this.hair = document.createElementNS("http://www.w3.org/2000/svg", "line");
      this.hair.setAttribute("class", "hair");
      figure.append(this.tip);
      this.picture.append(this.hair);
      for (const title of this.picture.querySelectorAll("title")) title.remove(); // the tip says the same
      this.picture.addEventListener("pointermove", (event) => this.show(this.valueAt(event.clientX)));
      this.picture.addEventListener("pointerleave", () => this.hide());
      this.picture.addEventListener("blur", () => this.hide());
      this.picture.addEventListener("keydown", (event) => this.press(event));
    }

    valueAt(clientX) {
      const box = this.picture.getBoundingClientRect();
      const place = ((clientX - box.left) / box.width) * this.width;
      const share = (place - this.first) / (this.last - this.first);
      return this.low + Math.min(Math.max(share, 0), 1) * (this.high - this.low);
    }

    press(event) {
      const step = { ArrowLeft: -0.01, ArrowRight: 0.01 }[event.key];
      if (event.key === "Escape") this.hide();
      if (step === undefined) return;
      event.preventDefault();
      const at = this.at ?? (step > 0 ? this.low : this.high);
      this.show(Math.min(Math.max(at + step * (this.high - this.low), this.low), this.high));
    }

    points(line) {
      if (!this.values.has(line)) {
        const pairs = line.dataset.values.split(" ").filter(Boolean);
        this.values.set(line, pairs.map((pair) => pair.split(",").map(Number)));
      }
      return this.values.get(line);
    }

    nearest(line, value) {
      const points = this.points(line);
      let low = 0;
      let high = points.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (points[middle][0] <= value) low = middle;
        else high = middle;
      }
      if (line.classList.contains("level")) return points[points[high]?.[0] <= value ? high : low];
      return Math.abs(points[low]?.[0] - value) <= Math.abs(points[high]?.[0] - value) ? points[low] : points[high];
    }

    show(value) {
      this.at = value;
      const rows = [element("div", "at", place(value, this.figure.dataset.unit))];
      const write = written[this.figure.dataset.shown];
      for (const line of this.picture.querySelectorAll("g.run")) {
        if (!isShown(line)) continue;
        const point = this.nearest(line, value);
        if (!point) continue;
        const row = element("div", "row");
        const swatch = element("i", [...line.classList].find((name) => name.startsWith("run-")));
        row.append(swatch, element("span", "", line.dataset.name), element("b", "", write(point[1])));
        rows.push(row);
      }
      for (const mark of this.picture.querySelectorAll("g.mark")) {
        const distance = Math.abs(Number(mark.dataset.x) - value) / (this.high - this.low);
        if (distance < 0.012 && isShown(mark)) rows.push(element("div", "happened", mark.dataset.label));
      }
      this.tip.replaceChildren(...rows);
      this.tip.hidden = false;
      this.putAt(value);
    }

    putAt(value) {
      const share = (value - this.low) / (this.high - this.low);
      const x = this.first + share * (this.last - this.first);
      for (const [name, at] of Object.entries({ x1: x, x2: x, y1: 8, y2: 206 })) this.hair.setAttribute(name, at);
      this.hair.style.display = "inline";
      const at = (x / this.width) * this.picture.clientWidth;
      const room = this.figure.clientWidth - this.tip.offsetWidth;
      const beside = at > this.picture.clientWidth / 2 ? at - 12 - this.tip.offsetWidth : at + 12;
      this.tip.style.left = `${Math.max(0, Math.min(beside, room))}px`;
    }

    hide() {
      this.at = undefined;
      this.tip.hidden = true;
      this.hair.style.display = "none";
    }
  }

  for (const figure of document.querySelectorAll("figure.chart")) new Chart(figure);
}
