// The page's state, the functions that change it, and the functions that redraw the page.

const SPEEDS = [1, 2, 5, 10, 20, 30, 60]; // steps per second

const episode = new Episode(JSON.parse(byId("record").textContent));
const frames = episode.record.frames && new Frames(episode.record.frames);
const vectors = episode.record.vectors && new VectorGlyphs(episode.vectors, episode.record.vectors.names.length);
const observations = frames ?? vectors; // what stands for a step elsewhere on the page
const pictures = episode.record.pictures && new Frames(episode.record.pictures);
const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");

// #if attention
// layer and head: index from 0, or MEAN. plane: their attention, null until decoded. scale: "weight" or "row".
// #end
const state = {
  step: 0,
  playing: false,
  speed: 10,
  // #if attention
  layer: episode.layerChoices().at(-1),
  head: episode.headChoices().at(-1),
  plane: null,
  scale: "weight",
  // #end
};

const showViews = makeViews(byId("views"), episode, frames, vectors, pictures);
const showBranches = makeBranches(byId("branches"), episode);
// #if numbers
const showNumbers = makeNumbers(byId("numbers"), episode.numbers);
// #end
// #if attention
const showStrongest = makeStrongest(byId("strongest"), observations, goTo, markStep);
const picker = makePicker(byId("picker"), episode, select);
// #end
const returns = Float64Array.from(episode.rewards);
returns.forEach((reward, k) => { returns[k] = reward + (returns[k - 1] ?? 0); });

function goTo(step) {
  state.step = Math.max(0, Math.min(episode.steps - 1, Math.round(step)));
  showStep();
  updateAddress();
}

// #if attention
// Selects the attention of a layer and head (index or MEAN); resolves when it is shown.
async function select(layer, head) {
  Object.assign(state, { layer, head });
  picker.mark(layer, head);
  updateAddress();
  const plane = await episode.plane(layer, head);
  if (state.layer !== layer || state.head !== head) return;
  state.plane = plane;
  byId("attention-selection").textContent = byId("attended-selection").textContent = nameOf(layer, head, episode);
  showMap();
  showAttention();
}

function setScale(scale) {
  state.scale = byId("scale").value = scale;
  showMap();
}
// #end

function setSpeed(speed) {
  state.speed = speed;
  byId("speed").value = String(speed);
}

function play() {
  if (state.playing) return;
  if (state.step === episode.steps - 1) goTo(0);
  state.playing = true;
  showPlaying();
  let before = performance.now();
  let due = 0;
  const advance = (now) => {
    if (!state.playing) return;
    due += (Math.min(250, now - before) / 1000) * state.speed; // time while the page was hidden doesn't count
    before = now;
    if (due >= 1) {
      goTo(state.step + Math.floor(due));
      due %= 1;
    }
    if (state.step === episode.steps - 1) pause();
    else requestAnimationFrame(advance);
  };
  requestAnimationFrame(advance);
}

function pause() {
  state.playing = false;
  showPlaying();
  updateAddress();
}

function showPlaying() {
  byId("play").ariaLabel = state.playing ? "Pause" : "Play";
  document.body.classList.toggle("playing", state.playing);
}

// Redraws everything that depends on the step.
function showStep() {
  const { step } = state;
  const lastStep = episode.steps - 1;
  byId("scrubber").value = step;
  byId("scrubber").ariaValueText = `step ${step} of ${lastStep}`;
  byId("position").textContent = `step ${step} / ${lastStep}`;
  document.documentElement.style.setProperty("--current-at", positionOf(step, episode.steps));
  showViews(step);
  showBranches(step);
  // #if numbers
  showNumbers(step);
  // #end
  byId("value").textContent = formatNumber(episode.values[step]);
  byId("reward").textContent = formatNumber(episode.rewards[step]);
  byId("return-so-far").textContent = `return so far ${formatNumber(returns[step])}`;
  byId("entropy").textContent = formatNumber(episode.entropies[step]);
  // #if attention
  showAttention();
  // #end
  // #if state
  byId("norm").textContent = formatNumber(episode.stateNorms[step]);
  // #end
}

// #if attention
// Redraws the current step's attention.
function showAttention() {
  const { plane, step } = state;
  if (!plane) return;
  const row = plane.row(step);
  const weights = new Float32Array(episode.steps);
  row.forEach((weight, age) => { weights[step - 1 - age] = weight; });
  const largest = row.reduce((a, b) => Math.max(a, b), 0);
  drawBars(byId("profile-plot"), weights, { low: 0, high: largest || 1 }, "--attention");
  showTicks(byId("profile-range"), [{ at: 0, text: formatWeight(largest) }, { at: 1, text: "0" }], "top");
  byId("profile-step").textContent = `Weights of step ${step}`;
  byId("largest").textContent = formatWeight(largest);
  const spread = `largest; effective steps ${plane.spread(step).toFixed(1)} of ${row.length}`;
  byId("spread").textContent = row.length ? spread : "memory is empty";
  byId("attended-none").hidden = row.length > 0;
  showStrongest(plane, step);
}

function showMap() {
  const { plane, scale } = state;
  if (!plane) return;
  const ramp = makeRamp(darkScheme.matches);
  const limit = scale === "row" ? null : colourLimit(plane);
  fitCanvas(byId("map-plot"));
  paintPlane(byId("map-plot"), plane, ramp, limit);
  paintLegend(byId("legend"), ramp);
  const top = limit ?? 1;
  const ticks = [0, 0.25, 1].map((share) => ({ at: Math.sqrt(share), text: formatTick(share * top) }));
  if (limit) ticks.at(-1).text = `≥ ${ticks.at(-1).text}`;
  showTicks(byId("legend-ticks"), ticks, "left");
}
// #end

// Redraws what depends only on the page's size and colour scheme, then everything else.
function showEpisode() {
  const curves = [
    ["value", episode.values, rangeOf(episode.values, false)],
    ["reward", episode.rewards, rangeOf(episode.rewards, true)],
    ["entropy", episode.entropies, rangeOf(episode.entropies, true)],
    // #if state
    ["norm", episode.stateNorms, rangeOf(episode.stateNorms, false)],
    // #end
  ];
  for (const [name, numbers, range] of curves) {
    if (name === "reward") drawBars(byId("reward-plot"), numbers, range, "--ink");
    else drawLine(byId(`${name}-plot`), numbers, range);
    const ends = [{ at: 0, text: formatTick(range.high) }, { at: 1, text: formatTick(range.low) }];
    showTicks(byId(`${name}-range`), ends, "top");
  }
  // #if attention
  const { clientWidth: width, clientHeight: height } = byId("map-plot");
  // #else
  const { clientWidth: width } = byId("value-plot");
  // #end
  const ticks = (pixels) => niceTicks(episode.steps, pixels / 44).map((step) => (
    { at: positionOf(step, episode.steps), text: String(step) }));
  // #if attention
  showTicks(byId("map-rows"), ticks(height), "top");
  for (const id of ["map-columns", "episode-columns"]) showTicks(byId(id), ticks(width), "left");
  showMap();
  // #else
  for (const axis of document.querySelectorAll(".axis")) showTicks(axis, ticks(width), "left");
  // #end
  showStep();
}
