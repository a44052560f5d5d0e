// Input: keyboard, mouse and the URL's fragment. Starts the page at the end.

// Marks a past step with a thin line in all plots; null removes the line.
function markStep(step) {
  const { style } = byId("timeline");
  if (step === null) style.removeProperty("--hovered-at");
  else style.setProperty("--hovered-at", positionOf(step, episode.steps));
}

function cycle(choices, now, by) {
  return choices[(choices.indexOf(now) + by + choices.length) % choices.length];
}

const KEYS = {
  " ": togglePlay,
  k: togglePlay,
  ArrowLeft: (event) => goTo(state.step - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => goTo(state.step + (event.shiftKey ? 10 : 1)),
  Home: () => goTo(0),
  End: () => goTo(episode.steps - 1),
  "+": () => changeSpeed(1),
  "=": () => changeSpeed(1),
  "-": () => changeSpeed(-1),
  // #if attention
  l: (event) => select(cycle(episode.layerChoices(), state.layer, event.shiftKey ? -1 : 1), state.head),
  h: (event) => select(state.layer, cycle(episode.headChoices(), state.head, event.shiftKey ? -1 : 1)),
  // #end
  p: () => byId("previous").click(),
  n: () => byId("following").click(),
  // #if attention
  m: () => select(episode.layerChoices().at(-1), episode.headChoices().at(-1)),
  // #end
  "?": () => byId("keys").showModal(),
};

function togglePlay() {
  if (state.playing) pause();
  else play();
}

function changeSpeed(by) {
  setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(state.speed) + by))]);
}

function onKey(event) {
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target.matches("select") || (event.key === " " && event.target.matches("button"))) return;
  event.preventDefault();
  action(event);
  announce();
}

let announceTimer = 0;

// Announces the current step to screen readers, once no key has been pressed for a moment.
function announce() {
  clearTimeout(announceTimer);
  announceTimer = setTimeout(() => {
    if (state.playing) return;
    const { branches, actions, values } = episode;
    const taken = branches.map(({ choices }, b) => choices[actions[state.step * branches.length + b]]);
    // #if numbers
    const { size, taken: numbers } = episode.numbers;
    taken.push(...Array.from(numbers.subarray(state.step * size, (state.step + 1) * size), formatNumber));
    // #end
    byId("announcer").textContent = `Step ${state.step}. Action ${taken.join(", ")}. Value ${formatNumber(values[state.step])}. `
      // #if attention
      + `Attention: ${byId("attention-selection").textContent}.`;
      // #end
      // #if state
      + `Norm of the state ${formatNumber(episode.stateNorms[state.step])}.`;
      // #end
  }, 600);
}

let addressTimer = 0;

// Stores step, layer and head in the URL, for sharing. Not during playback: browsers limit the rate of updates.
function updateAddress() {
  clearTimeout(addressTimer);
  if (state.playing) return;
  // #if attention
  const number = (choice) => (choice === MEAN ? MEAN : choice + 1);
  const address = `#step=${state.step}&layer=${number(state.layer)}&head=${number(state.head)}`;
  // #else
  const address = `#step=${state.step}`;
  // #end
  addressTimer = setTimeout(() => history.replaceState(null, "", address), 200);
}

function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  // #if attention
  const chosen = (name, choices, now) => {
    const choice = address.get(name) === MEAN ? MEAN : Number(address.get(name) ?? NaN) - 1;
    return choices.includes(choice) ? choice : now;
  };
  // #end
  goTo(Number(address.get("step") ?? state.step) || 0);
  // #if attention
  const layer = chosen("layer", episode.layerChoices(), state.layer);
  const head = chosen("head", episode.headChoices(), state.head);
  return select(layer, head);
  // #end
}

// The steps under the pointer, along a plot's horizontal and vertical axis.
function underPointer(event) {
  const box = event.currentTarget.getBoundingClientRect();
  return {
    across: stepAt((event.clientX - box.left) / box.width, episode.steps),
    down: stepAt((event.clientY - box.top) / box.height, episode.steps),
  };
}

function showTip(event, step, text) {
  const tip = byId("tip");
  tip.hidden = false;
  tip.lastElementChild.textContent = text;
  observations.draw(tip.firstElementChild, step);
  const fits = event.clientX + 16 + tip.offsetWidth <= innerWidth;
  tip.style.left = `${event.clientX + (fits ? 16 : -12 - tip.offsetWidth)}px`;
  tip.style.top = `${Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 8)}px`;
  markStep(step);
}

function hideTip() {
  byId("tip").hidden = true;
  markStep(null);
}

// Makes a plot interactive: clicking, and if `drags` dragging, goes to step `pick(place)`; hovering shows a text.
function listenTo(plot, pick, describe, drags = true) {
  plot.addEventListener("pointerdown", (event) => {
    plot.setPointerCapture(event.pointerId);
    goTo(pick(underPointer(event)));
  });
  plot.addEventListener("pointermove", (event) => {
    const place = underPointer(event);
    if (drags && plot.hasPointerCapture(event.pointerId)) goTo(pick(place));
    const text = describe(place);
    if (text === null) hideTip();
    else showTip(event, place.across, text);
  });
  plot.addEventListener("pointerleave", hideTip);
}

// #if attention
function describeWeight(step, past) {
  if (!state.plane || past >= step || step - past > episode.ages) return null;
  return `step ${step} → ${past}, ${step - past} steps back: ${formatWeight(state.plane.weight(step, past))}`;
}
// #end

function listen() {
  const curves = { value: episode.values, reward: episode.rewards, entropy: episode.entropies };
  // #if state
  curves.norm = episode.stateNorms;
  // #end
  for (const [name, numbers] of Object.entries(curves)) {
    const describe = ({ across }) => `step ${across}: ${name} ${formatNumber(numbers[across])}`;
    listenTo(byId(`${name}-plot`), ({ across }) => across, describe);
  }
  // #if attention
  listenTo(byId("profile-plot"), ({ across }) => across, ({ across }) => describeWeight(state.step, across), false);
  listenTo(byId("map-plot"), ({ down }) => down, ({ across, down }) => describeWeight(down, across));
  // #end
  const clicks = {
    first: () => goTo(0), back: () => goTo(state.step - 1), play: togglePlay, forward: () => goTo(state.step + 1),
    last: () => goTo(episode.steps - 1), help: () => byId("keys").showModal(), copy: copyCommand,
  };
  for (const [id, click] of Object.entries(clicks)) byId(id).addEventListener("click", click);
  byId("scrubber").addEventListener("input", (event) => goTo(event.target.valueAsNumber));
  byId("speed").addEventListener("change", (event) => setSpeed(Number(event.target.value)));
  // #if attention
  byId("scale").addEventListener("change", (event) => setScale(event.target.value));
  // #end
  document.addEventListener("keydown", onKey);
  // Mouse clicks don't move the focus, so that the space bar still starts playback after a click.
  document.addEventListener("mousedown", (event) => {
    if (event.target.closest("main button, .transport button")) event.preventDefault();
  });
  window.addEventListener("hashchange", readAddress);
  darkScheme.addEventListener("change", () => {
    showEpisode();
    // #if attention
    picker.paint(makeRamp(darkScheme.matches));
    // #end
  });
  new ResizeObserver(showEpisode).observe(byId("timeline"));
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText(episode.record.command);
    byId("copy").textContent = "Copied";
  } catch { // no clipboard access: select the text for copying by keyboard
    getSelection().selectAllChildren(byId("command"));
  }
}

async function start() {
  const { record } = episode;
  byId("task").textContent = record.env_id;
  byId("model").textContent = record.model;
  if (record.previous) byId("previous").href = record.previous;
  if (record.following) byId("following").href = record.following;
  byId("episodes").hidden = !record.previous && !record.following;
  const numbered = ({ choices }) => choices.every((choice, i) => choice === `${i}`);
  byId("action-note").textContent = episode.branches.length && episode.branches.every(numbered)
    ? "choices by number, from 0" : "";
  byId("replay").hidden = !record.command;
  byId("command").textContent = record.command;
  byId("scrubber").max = episode.steps - 1;
  // #if numbers
  byId("entropy-limit").textContent = "of a density where actions are numbers";
  // #else
  const limit = episode.branches.reduce((sum, { choices }) => sum + Math.log(choices.length), 0);
  byId("entropy-limit").textContent = `maximum ${formatNumber(limit)}`;
  // #end
  byId("speed").append(...SPEEDS.map((speed) => element("option", { value: speed, textContent: `${speed}/s` })));
  document.documentElement.style.setProperty("--steps", episode.steps);
  showResults(byId("results"), record);
  showDetails(byId("details"), record.details);
  setSpeed(state.speed);
  listen();
  await readAddress();
  // #if attention
  await picker.paint(makeRamp(darkScheme.matches));
  // #end
}

window.episode = episode;
// #if attention
window.player = { state, goTo, play, pause, setSpeed, setScale, select, started: start() };
// #else
window.player = { state, goTo, play, pause, setSpeed, started: start() };
// #end
