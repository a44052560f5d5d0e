// The attention heat map: one row per step, one column per past step.

const NO_WEIGHT = -1;
const HUE = 257; // hue of --attention

// Converts OKLCH to sRGB bytes; matrices from Björn Ottosson, "A perceptual color space for image processing".
function oklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((x) => 255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055));
}

// Colour map: 256 colours of one hue, evenly spaced in lightness, starting near the background colour.
function makeRamp(dark) {
  const ramp = new Uint8ClampedArray(3 * 256);
  for (let i = 0; i < 256; i++) {
    const x = i / 255;
    const lightness = dark ? 0.27 + 0.67 * x : 0.955 - 0.63 * x;
    const chroma = 0.012 + (dark ? 0.48 * x * (1 - x) : x * (0.27 - 0.195 * x));
    ramp.set(oklch(lightness, chroma, HUE), 3 * i);
  }
  return ramp;
}

// Downsamples a plane to f32[rows * columns] by the maximum in each cell; NO_WEIGHT where there is no weight.
function binPlane(plane, rows, columns) {
  const grid = new Float32Array(rows * columns).fill(NO_WEIGHT);
  for (let step = 1; step < plane.steps; step++) {
    const start = Math.floor((step * rows) / plane.steps) * columns;
    const row = plane.row(step);
    for (let age = 0; age < row.length; age++) {
      const cell = start + Math.floor(((step - 1 - age) * columns) / plane.steps);
      if (row[age] > grid[cell]) grid[cell] = row[age];
    }
  }
  return grid;
}

// Colours a grid. Colours follow the square root of weights, because most are small. Weights of `limit` and above get
// the last colour; if null, each row is scaled to its largest weight.
function colourGrid(grid, rows, columns, ramp, limit) {
  const image = new ImageData(columns, rows);
  for (let r = 0; r < rows; r++) {
    const row = grid.subarray(r * columns, (r + 1) * columns);
    const top = limit ?? row.reduce((a, b) => Math.max(a, b), 0);
    for (let c = 0; c < columns; c++) {
      if (row[c] === NO_WEIGHT) continue;
      const at = 4 * (r * columns + c);
      const shade = 3 * Math.min(255, Math.round(255 * Math.sqrt(row[c] / (top || 1))));
      image.data[at] = ramp[shade];
      image.data[at + 1] = ramp[shade + 1];
      image.data[at + 2] = ramp[shade + 2];
      image.data[at + 3] = 255;
    }
  }
  return image;
}

// Draws a plane on a canvas, downsampled if the episode has more steps than the canvas has pixels.
function paintPlane(canvas, plane, ramp, limit) {
  const rows = Math.min(plane.steps, canvas.height);
  const columns = Math.min(plane.steps, canvas.width);
  const small = new OffscreenCanvas(columns, rows);
  const image = colourGrid(binPlane(plane, rows, columns), rows, columns, ramp, limit);
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// Upper end of the colour scale: a high quantile, because a few weights, mostly of the first steps, are much larger.
function colourLimit(plane) {
  const limit = plane.quantile(0.995);
  return limit > 0 ? Number(limit.toPrecision(2)) : 1;
}

function paintLegend(canvas, ramp) {
  canvas.width = 256;
  canvas.height = 1;
  const image = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([ramp[3 * i], ramp[3 * i + 1], ramp[3 * i + 2], 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
