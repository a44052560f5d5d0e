// Panels of the page. Each `make...` function builds a panel and returns a function that updates it for a step.

const THUMBNAILS = 8;
const MANY = 12; // longer lists get a compact layout

function byId(id) {
  return document.getElementById(id);
}

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Fixed decimals, so that digits don't move while numbers change, and a true minus sign.
function formatNumber(x) {
  if (!Number.isFinite(x)) return String(x);
  const size = Math.abs(x);
  const text = size >= 1e5 || (size > 0 && size < 5e-4) ? x.toExponential(1) : x.toFixed(size < 100 ? 3 : 1);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

function formatWeight(weight) {
  return weight > 0 && weight < 5e-4 ? "<0.001" : weight.toFixed(3);
}

// Formats a number that doesn't change: up to five significant digits.
function formatResult(x) {
  return typeof x === "number" ? String(Number(x.toPrecision(5))).replace("-", "−") : x;
}

const RESULT_NAMES = { r: "return", l: "length" };

function showResults(list, record) {
  const rows = Object.entries(record.results).map(([name, x]) => [
    RESULT_NAMES[name] ?? name.replaceAll("_", " "), formatResult(x)]);
  rows.push(["seed", String(record.seed)], ["episode", String(record.episode)]);
  for (const [name, text] of rows) {
    list.append(element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: text })));
  }
}

function showDetails(list, details) {
  for (const [name, text] of Object.entries(details)) {
    list.append(element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: text })));
  }
}

// Pictures and numbers that the agent observes and, if recorded, the picture of the whole task.
function makeViews(container, episode, frames, vectors, pictures) {
  const shown = [];
  const addFrames = (frames, caption) => {
    const canvas = element("canvas", { width: frames.width, height: frames.height, role: "img", ariaLabel: caption });
    const figure = element("figure", {}, canvas, element("figcaption", { textContent: caption }));
    figure.classList.toggle("wide", frames.width > 1.6 * frames.height);
    container.append(figure);
    shown.push((step) => frames.draw(canvas, step));
  };
  if (frames) addFrames(frames, "the agent’s observation");
  if (vectors) shown.push(makeVector(container, episode.record.vectors.names, vectors));
  if (pictures) addFrames(pictures, "ground truth");
  return (step) => shown.forEach((show) => show(step));
}

function makeVector(container, names, glyphs) {
  const rows = names.map((name) => {
    const bar = element("i");
    const number = element("span", { className: "number" });
    const row = element("tr", {}, element("th", { textContent: name, scope: "row" }),
      element("td", { className: "signed" }, bar), element("td", {}, number));
    return { row, bar, number };
  });
  const body = element("tbody", {}, ...rows.map(({ row }) => row));
  const table = element("table", { className: "vector" }, body);
  const scroller = element("div", { className: "scroller", tabIndex: names.length > MANY ? 0 : -1 }, table);
  container.append(element("figure", { className: "wide" }, scroller,
    element("figcaption", { textContent: `the agent’s observation, bars up to ${formatResult(glyphs.limit)}`
      + (names.every((name, i) => name === `${i}`) ? "; elements by index, from 0" : "") })));
  return (step) => glyphs.at(step).forEach((x, i) => {
    const share = x / glyphs.limit;
    rows[i].bar.style.left = `${50 + 50 * Math.min(0, share)}%`;
    rows[i].bar.style.width = `${50 * Math.abs(share)}%`;
    rows[i].number.textContent = formatNumber(x);
  });
}

// Probabilities of all choices; the action taken is marked.
function makeBranches(container, episode) {
  const branches = episode.branches.map(({ name, choices }) => {
    const rows = choices.map((choice) => {
      const bar = element("i");
      const number = element("span", { className: "number" });
      const taken = element("span", { className: "visually-hidden" });
      const label = element("span", { className: "choice" }, choice, taken);
      const share = element("span", { className: "share" }, bar);
      const row = element("li", {}, label, share, number, element("span", { className: "dot" }));
      return { row, bar, number, taken };
    });
    container.append(element("div", { className: choices.length > MANY ? "branch many" : "branch" },
      element("h3", { textContent: name, hidden: episode.branches.length === 1 }),
      element("ol", {}, ...rows.map(({ row }) => row))));
    return rows;
  });
  const total = branches.reduce((sum, rows) => sum + rows.length, 0);
  return (step) => {
    let at = step * total;
    branches.forEach((rows, branch) => {
      const action = episode.actions[step * branches.length + branch];
      rows.forEach(({ row, bar, number, taken }, choice) => {
        const probability = episode.probabilities[at++];
        row.classList.toggle("taken", choice === action);
        taken.textContent = choice === action ? ", taken" : "";
        bar.style.width = `${100 * probability}%`;
        number.textContent = formatNumber(probability);
      });
    });
  };
}

// #if numbers
// Each number of the action in its range: a bar from mean - std to mean + std, a line at the mean, a dot where it was.
function makeNumbers(container, numbers) {
  const rows = numbers.names.map((name, i) => {
    const { low, high, bounded } = numbers.ranges[i];
    const [spread, mean, taken] = ["spread", "mean", "dot"].map((className) => element("i", { className }));
    const [value, moments] = [element("td", { className: "number" }), element("td", { className: "number" })];
    const range = `${formatTick(low)} to ${formatTick(high)}${bounded ? "" : " in this episode"}`;
    const row = element("tr", {}, element("th", { textContent: name, scope: "row", title: range }),
      element("td", { className: "range", title: range }, spread, mean, taken), value, moments);
    return { row, spread, mean, taken, value, moments };
  });
  const head = element("tr", {}, ...["", "", "taken", "mean ± std"].map((textContent) => element("th", { textContent })));
  const table = element("table", { className: "numbers" },
    element("thead", {}, head), element("tbody", {}, ...rows.map(({ row }) => row)));
  container.append(element("div", { className: "scroller", tabIndex: numbers.size > MANY ? 0 : -1 }, table));
  const ranges = new Set(rows.map(({ row }) => row.firstChild.title));
  const note = ranges.size === 1 ? `bars from ${[...ranges][0]}` : "bars over each number’s range";
  container.append(element("small", { textContent: note }));
  return (step) => rows.forEach(({ spread, mean, taken, value, moments }, i) => {
    const at = step * numbers.size + i;
    const { low, high } = numbers.ranges[i];
    const share = (x) => 100 * Math.max(0, Math.min(1, (x - low) / (high - low)));
    const [centre, std] = [numbers.mean[at], numbers.std[at]];
    spread.style.left = `${share(centre - std)}%`;
    spread.style.width = `${share(centre + std) - share(centre - std)}%`;
    mean.style.left = `${share(centre)}%`;
    taken.style.left = `${share(numbers.taken[at])}%`;
    value.textContent = formatNumber(numbers.taken[at]);
    moments.textContent = `${formatNumber(centre)} ± ${formatNumber(std)}`;
  });
}
// #end

// Thumbnails of the past steps with the largest weights; clicking one goes to its step.
function makeStrongest(list, observations, onPick, onHover) {
  const items = Array.from({ length: THUMBNAILS }, () => {
    const canvas = element("canvas", { width: observations.width, height: observations.height });
    const [step, weight, bar] = [element("span"), element("b"), element("i")];
    const word = element("span", { className: "word", textContent: "step " });
    const button = element("button", { type: "button" }, canvas,
      element("span", { className: "caption" }, element("span", {}, word, step), weight),
      element("span", { className: "share" }, bar));
    const item = element("li", {}, button);
    button.addEventListener("click", () => onPick(Number(item.dataset.step)));
    for (const event of ["pointerenter", "focus"]) {
      button.addEventListener(event, () => onHover(Number(item.dataset.step)));
    }
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => onHover(null));
    list.append(item);
    return { item, button, canvas, word, step, weight, bar };
  });
  return (plane, now) => {
    const strongest = plane.strongest(now, THUMBNAILS);
    items.forEach(({ item, button, canvas, word, step, weight, bar }, i) => {
      item.classList.toggle("empty", i >= strongest.length);
      button.disabled = i >= strongest.length;
      if (i >= strongest.length) return;
      const past = strongest[i];
      item.dataset.step = past.step;
      item.dataset.weight = past.weight;
      word.hidden = past.step > 999; // no room
      step.textContent = past.step;
      weight.textContent = formatWeight(past.weight);
      bar.style.width = `${(100 * past.weight) / strongest[0].weight}%`;
      button.ariaLabel = `Step ${past.step}, weight ${formatWeight(past.weight)}`;
      observations.draw(canvas, past.step);
    });
  };
}

// For example "layer 2, mean of 4 heads"; layers or heads are left out if there is only one.
function nameOf(layer, head, episode) {
  const parts = [["layer", layer, episode.layers], ["head", head, episode.heads]].filter(([, , count]) => count > 1);
  const picked = parts.filter(([, choice]) => choice !== MEAN).map(([kind, choice]) => `${kind} ${choice + 1}`);
  const means = parts.filter(([, choice]) => choice === MEAN).map(([kind, , count]) => `${count} ${kind}s`);
  if (means.length) picked.push(`mean of ${means.join(" and ")}`);
  return picked.join(", ");
}

// Selector of layer and head: a grid of small heat maps, as a radio group with arrow-key navigation.
function makePicker(container, episode, onPick) {
  const [layers, heads] = [episode.layerChoices(), episode.headChoices()];
  const mean = heads.length > 6 ? "x̄" : "mean"; // a short label where space is limited
  const label = (choice) => element("span", { textContent: choice === MEAN ? mean : choice + 1, ariaHidden: true });
  container.style.setProperty("--heads", heads.length);
  byId("picker-key").textContent = heads.length > 1 ? "layers down, heads across" : "layers down";
  if (heads.length > 1) container.append(element("span"), ...heads.map(label));
  const cells = layers.map((layer, row) => {
    container.append(label(layer));
    return heads.map((head, column) => {
      const canvas = element("canvas", { width: 48, height: 48 });
      const cell = element("button", { type: "button", role: "radio", tabIndex: -1 }, canvas);
      cell.ariaLabel = cell.title = nameOf(layer, head, episode) || "layer 1, head 1";
      cell.addEventListener("click", () => onPick(layer, head));
      cell.addEventListener("keydown", (event) => walk(event, row, column));
      container.append(cell);
      return { cell, canvas, layer, head };
    });
  });
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const walk = (event, row, column) => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    const [down, right] = moves[event.key];
    const target = cells[(row + down + layers.length) % layers.length][(column + right + heads.length) % heads.length];
    target.cell.focus();
    onPick(target.layer, target.head);
  };
  const all = cells.flat();
  return {
    mark(layer, head) {
      for (const { cell, layer: l, head: h } of all) {
        const picked = l === layer && h === head;
        cell.ariaChecked = String(picked);
        cell.tabIndex = picked ? 0 : -1;
      }
    },
    async paint(ramp) {
      for (const { canvas, layer, head } of all) {
        const plane = await episode.plane(layer, head);
        paintPlane(canvas, plane, ramp, colourLimit(plane));
      }
    },
  };
}

// Axis labels: three significant digits.
function formatTick(x) {
  return formatResult(Number(x.toPrecision(3)));
}

// Places axis labels at fractions of a plot's height or width.
function showTicks(container, ticks, side) {
  container.replaceChildren(...ticks.map(({ at, text }) => {
    const tick = element("span", { textContent: text });
    tick.style[side] = `${100 * at}%`;
    return tick;
  }));
}
