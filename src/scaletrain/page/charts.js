// Makes charts answer to the pointer and the arrow keys: with the values of their lines there, or the nearest thing.
"use strict";
{
  const MOST_ROWS = 12;
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
  const place = (value, unit) => (unit === "step" ? `step ${Math.round(value)}` : `${Number(value.toPrecision(4)).toLocaleString("en")} ${value === 1 ? unit.replace(/s$/, "") : unit}`);

  const element = (name, className, text) => {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text ?? "";
    return made;
  };

  const isShown = (node) => getComputedStyle(node).display !== "none";
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const tuples = (text) => text.split(" ").filter(Boolean).map((one) => one.split(",").map(Number));

  const scale = (text) => {
    const [low, high, first, last] = text.split(" ").map(Number);
    const [of, back] = text.endsWith("log") ? [Math.log, Math.exp] : [Number, Number];
    const share = (value) => within((of(value) - of(low)) / (of(high) - of(low)), 0, 1);
    const at = (share) => within(back(of(low) + within(share, 0, 1) * (of(high) - of(low))), low, high);
    const placeOf = (value) => first + share(value) * (last - first);
    return { first, last, share, at, placeOf, valueAt: (place) => at((place - first) / (last - first)) };
  };

  class Figure {
    constructor(figure) {
      this.figure = figure;
      this.picture = figure.querySelector("svg");
      this.tip = element("div", "tip");
      this.tip.setAttribute("role", "status");
      this.tip.hidden = true;
      figure.append(this.tip);
      for (const title of this.picture.querySelectorAll("title")) title.remove(); // the tip says the same
      const point = (event) => this.point(...this.placeOf(event));
      this.picture.addEventListener("pointermove", point);
      this.picture.addEventListener("pointerdown", point);
      this.picture.addEventListener("pointerleave", (event) => event.pointerType === "touch" || this.hide());
      this.picture.addEventListener("blur", () => this.hide());
      this.picture.addEventListener("keydown", (event) => this.press(event));
    }

    placeOf(event) {
      const [box, view] = [this.picture.getBoundingClientRect(), this.picture.viewBox.baseVal];
      return [((event.clientX - box.left) / box.width) * view.width, ((event.clientY - box.top) / box.height) * view.height];
    }

    press(event) {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (event.key === "Escape") this.hide();
      if (step === undefined) return;
      event.preventDefault();
      this.walk(step);
    }

    tell(rows, x, y) {
      this.tip.replaceChildren(...rows);
      this.tip.hidden = false;
      const [box, frame] = [this.picture.getBoundingClientRect(), this.figure.getBoundingClientRect()];
      const size = box.width / this.picture.viewBox.baseVal.width;
      const at = box.left - frame.left + x * size;
      const beside = at > frame.width / 2 ? at - 12 - this.tip.offsetWidth : at + 12;
      this.tip.style.left = `${within(beside, 0, Math.max(0, frame.width - this.tip.offsetWidth))}px`;
      if (y !== undefined) this.tip.style.top = `${box.top - frame.top + y * size + 14}px`;
    }

    hide() {
      this.tip.hidden = true;
    }
  }

  class Lines extends Figure {
    constructor(figure) {
      super(figure);
      this.x = scale(this.picture.dataset.x);
      this.y = scale(this.picture.dataset.y);
      this.places = this.picture.dataset.places?.split(" ").map(Number);
      this.values = new Map();
      this.hair = document.createElementNS("http://www.w3.org/2000/svg", "line");
      this.hair.setAttribute("class", "hair");
      this.picture.append(this.hair);
    }

    point(x, y) {
      const near = (value) => Math.abs(this.x.placeOf(value) - x);
      const at = this.places?.reduce((one, other) => (near(other) < near(one) ? other : one));
      this.show(at ?? this.x.valueAt(x), y);
    }

    walk(step) {
      if (this.places) {
        const next = this.places.indexOf(this.at) + (this.at === undefined && step < 0 ? 0 : step);
        this.show(this.places.at(this.at === undefined ? next : within(next, 0, this.places.length - 1)));
      } else {
        this.show(this.x.at(this.at === undefined ? (step > 0 ? 0.01 : 0.99) : this.x.share(this.at) + 0.01 * step));
      }
    }

    points(line) {
      if (!this.values.has(line)) this.values.set(line, tuples(line.dataset.values));
      return this.values.get(line);
    }

    nearest(line, value) {
      const points = this.points(line);
      if (this.places) return points.find(([x]) => x === value);
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

    // Of many lines those next to the pointer, from the top to the bottom.
    found(value, y) {
      const lines = [...this.picture.querySelectorAll("g.run")].filter(isShown);
      const found = lines.map((line) => [line, this.nearest(line, value)]).filter(([, point]) => point);
      if (found.length <= MOST_ROWS) return found;
      const height = ([, point]) => this.y.placeOf(point[1]);
      const away = y === undefined ? (each) => -height(each) : (each) => Math.abs(height(each) - y);
      const near = found.sort((one, other) => away(one) - away(other)).slice(0, MOST_ROWS);
      return near.sort((one, other) => height(one) - height(other));
    }

    show(value, y) {
      this.at = value;
      const write = written[this.figure.dataset.shown];
      const rows = [element("div", "at", place(value, this.figure.dataset.unit))];
      for (const [line, [, found, low, high]] of this.found(value, y)) {
        const row = element("div", "row");
        const swatch = element("i", [...line.classList].find((name) => name.startsWith("run-")));
        swatch.style.cssText = line.style.cssText;
        const spread = low === undefined ? "" : ` (${write(low)} to ${write(high)})`;
        row.append(swatch, element("span", "", line.dataset.name), element("b", "", write(found) + spread));
        rows.push(row);
      }
      const x = this.x.placeOf(value);
      for (const mark of this.picture.querySelectorAll("g.mark")) {
        const distance = Math.abs(this.x.share(Number(mark.dataset.x)) - this.x.share(value));
        if (distance < 0.012 && isShown(mark)) rows.push(element("div", "happened", mark.dataset.label));
      }
      for (const [name, at] of Object.entries({ x1: x, x2: x, y1: this.y.last, y2: this.y.first })) this.hair.setAttribute(name, at);
      this.hair.style.display = "inline";
      this.tell(rows, x);
    }

    hide() {
      super.hide();
      this.at = undefined;
      this.hair.style.display = "none";
    }
  }

  class Items extends Figure {
    constructor(figure) {
      super(figure);
      this.items = [...this.picture.querySelectorAll("g.item")].map((node) => ({ node, points: tuples(node.dataset.points) }));
    }

    point(x, y) {
      const away = ({ points }) => Math.min(...points.map((end, number) => distance(points[Math.max(number - 1, 0)], end, x, y)));
      const distances = this.items.map(away);
      this.pick(distances.indexOf(Math.min(...distances)), x, y);
    }

    walk(step) {
      const count = this.items.length;
      const number = this.at === undefined ? (step > 0 ? 0 : count - 1) : (this.at + step + count) % count;
      this.pick(number, ...this.items[number].points.at(-1));
    }

    pick(number, x, y) {
      this.at = number;
      this.figure.classList.add("picking");
      this.items.forEach(({ node }, other) => node.classList.toggle("picked", other === number));
      const [head, ...rest] = this.items[number].node.dataset.label.split("\n");
      const rows = [element("div", "", head), ...rest.map((line) => element("div", "at", line))];
      this.tell(rows, x, y);
    }

    hide() {
      super.hide();
      this.at = undefined;
      this.figure.classList.remove("picking");
      for (const { node } of this.items) node.classList.remove("picked");
    }
  }

  // From a place to the stretch between two others.
  const distance = ([x1, y1], [x2, y2], x, y) => {
    const length = (x2 - x1) ** 2 + (y2 - y1) ** 2;
    const share = length ? within(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length, 0, 1) : 0;
    return Math.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1));
  };

  for (const figure of document.querySelectorAll("figure.chart")) {
    if (figure.querySelector("g.item")) new Items(figure);
    else new Lines(figure);
  }
}
