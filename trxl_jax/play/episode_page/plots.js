// Plots over the episode. All share one horizontal axis: step k of K is centred at (k + 1/2) / K of the width.

function fitCanvas(canvas) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  return ratio;
}

function stepAt(fraction, steps) {
  return Math.max(0, Math.min(steps - 1, Math.floor(fraction * steps)));
}

function positionOf(step, steps) {
  return (step + 0.5) / steps;
}

// Smallest and largest finite number; `withZero` extends the range to include 0.
function rangeOf(numbers, withZero) {
  let low = withZero ? 0 : Infinity;
  let high = withZero ? 0 : -Infinity;
  for (const x of numbers) {
    if (x < low && Number.isFinite(x)) low = x;
    if (x > high && Number.isFinite(x)) high = x;
  }
  if (low > high) return { low: 0, high: 1 };
  return low === high ? { low: low - (low === 0 ? 0 : 0.5), high: high + (high === 0 ? 1 : 0.5) } : { low, high };
}

function verticalScale(canvas, range, ratio) {
  const margin = 3 * ratio;
  return (y) => canvas.height - margin - ((y - range.low) / (range.high - range.low)) * (canvas.height - 2 * margin);
}

function drawZero(context, canvas, y, ratio) {
  context.fillStyle = colour("--rule");
  context.fillRect(0, Math.round(y(0) - ratio / 2), canvas.width, Math.max(1, Math.round(ratio)));
}

function drawLine(canvas, numbers, range) {
  const ratio = fitCanvas(canvas);
  const context = canvas.getContext("2d");
  const y = verticalScale(canvas, range, ratio);
  if (range.low <= 0 && range.high >= 0) drawZero(context, canvas, y, ratio);
  context.strokeStyle = colour("--ink");
  context.lineWidth = 1.25 * ratio;
  context.lineJoin = "round";
  context.beginPath();
  let drawing = false;
  numbers.forEach((number, k) => {
    const x = positionOf(k, numbers.length) * canvas.width;
    if (!Number.isFinite(number)) drawing = false;
    else if (drawing) context.lineTo(x, y(number));
    else {
      context.moveTo(x, y(number));
      context.lineTo(x + 0.01, y(number)); // makes a single point visible
      drawing = true;
    }
  });
  context.stroke();
}

// Bar chart from zero, with a minimum bar width for long episodes.
function drawBars(canvas, numbers, range, colourName) {
  const ratio = fitCanvas(canvas);
  const context = canvas.getContext("2d");
  const y = verticalScale(canvas, range, ratio);
  drawZero(context, canvas, y, ratio);
  const slot = canvas.width / numbers.length;
  const width = Math.min(24 * ratio, Math.max(1.5 * ratio, 0.8 * slot));
  context.fillStyle = colour(colourName);
  numbers.forEach((number, k) => {
    if (!number || !Number.isFinite(number)) return;
    context.fillRect((k + 0.5) * slot - width / 2, y(0), width, y(number) - y(0));
  });
}

// Tick positions at round step numbers, at most `count`.
function niceTicks(steps, count) {
  const size = [1, 2, 5].flatMap((x) => [1, 10, 100, 1000, 10000].map((power) => x * power))
    .sort((a, b) => a - b).find((step) => steps / step <= count) ?? steps;
  return Array.from({ length: Math.ceil(steps / size) }, (_, i) => i * size);
}
