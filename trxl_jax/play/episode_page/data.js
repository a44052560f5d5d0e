// The episode's data. Arrays are decoded on loading, attention of a layer and head when it is first shown.

const MEAN = "mean";

function decodeBytes(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function decodeArray(text, ArrayType) {
  return new ArrayType(decodeBytes(text).buffer);
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Attention weights of one layer and head, or a mean over them: weights[step * ages + age]; age 0 is the previous step.
class Plane {
  constructor(weights, steps, ages) {
    this.weights = weights;
    this.steps = steps;
    this.ages = ages;
  }

  // Weights of a step on past steps, newest first; empty for the first step.
  row(step) {
    const start = step * this.ages;
    return this.weights.subarray(start, start + Math.min(step, this.ages));
  }

  // Weight of a step on a past step; 0 outside the window.
  weight(step, past) {
    return this.row(step)[step - 1 - past] ?? 0;
  }

  // The `count` past steps with the largest weights, in descending order.
  strongest(step, count) {
    const past = Array.from(this.row(step), (weight, age) => ({ step: step - 1 - age, weight }));
    return past.sort((a, b) => b.weight - a.weight).slice(0, count);
  }

  // Effective number of attended steps: the exponential of the weights' entropy.
  spread(step) {
    let entropy = 0;
    for (const weight of this.row(step)) if (weight > 0) entropy -= weight * Math.log(weight);
    // #if self
    const sum = this.row(step).reduce((a, b) => a + b, 0);
    if (sum > 0) entropy = entropy / sum + Math.log(sum); // of the weights that are shown, scaled to sum to 1
    // #end
    return Math.exp(entropy);
  }

  // Quantile of all weights inside the window.
  quantile(fraction) {
    const visible = [];
    const stride = Math.max(1, Math.floor(this.weights.length / 50000));
    for (let i = 0; i < this.weights.length; i += stride) {
      if (i % this.ages < Math.floor(i / this.ages)) visible.push(this.weights[i]);
    }
    visible.sort((a, b) => a - b);
    return visible[Math.floor(fraction * (visible.length - 1))] ?? 1;
  }
}

// #if numbers
// Actions that are numbers: taken, mean and std at [step * size + number].
class Numbers {
  constructor(record) {
    this.names = record.names;
    this.size = record.names.length;
    for (const name of ["taken", "mean", "std"]) this[name] = decodeArray(record[name], Float32Array);
    this.ranges = record.names.map((_, i) => this.range(i, record.low[i], record.high[i]));
  }

  // The bounds of a number; without bounds, what it reaches in this episode.
  range(i, low, high) {
    const reached = [];
    for (let k = i; k < this.taken.length; k += this.size) {
      reached.push(this.taken[k], this.mean[k] - this.std[k], this.mean[k] + this.std[k]);
    }
    const { low: lowest, high: highest } = rangeOf(reached, false);
    const range = { low: low ?? lowest, high: high ?? highest, bounded: low !== null && high !== null };
    return range.low < range.high ? range : { ...range, low: range.low - 0.5, high: range.low + 0.5 };
  }
}
// #end

class Episode {
  constructor(record) {
    this.record = record;
    this.steps = record.steps;
    // #if attention
    this.layers = record.layers;
    this.heads = record.heads;
    this.ages = record.attention.ages;
    // #end
    this.branches = record.branches;
    this.actions = decodeArray(record.actions, Int32Array);
    this.probabilities = decodeArray(record.probabilities, Float32Array);
    // #if numbers
    this.numbers = new Numbers(record.numbers);
    // #end
    this.entropies = decodeArray(record.entropies, Float32Array);
    this.values = decodeArray(record.values, Float32Array);
    this.rewards = decodeArray(record.rewards, Float32Array);
    // #if state
    this.stateNorms = decodeArray(record.state_norms, Float32Array);
    // #end
    this.vectors = record.vectors && decodeArray(record.vectors.numbers, Float32Array);
    this.planes = new Map();
  }

  // Selectable layers and heads: every index and, if there are several, MEAN.
  layerChoices() {
    return choices(this.layers);
  }

  headChoices() {
    return choices(this.heads);
  }

  // Promise of the attention of a layer and head, each an index from 0 or MEAN.
  plane(layer, head) {
    const key = `${layer} ${head}`;
    if (!this.planes.has(key)) this.planes.set(key, this.loadPlane(layer, head));
    return this.planes.get(key);
  }

  async loadPlane(layer, head) {
    if (layer !== MEAN && head !== MEAN) {
      const bytes = await inflate(decodeBytes(this.record.attention.planes[layer][head]));
      const count = bytes.length / 2;
      const scale = 1 / this.record.attention.levels;
      const weights = new Float32Array(count);
      for (let i = 0; i < count; i++) weights[i] = (256 * bytes[i] + bytes[count + i]) * scale;
      return new Plane(weights, this.steps, this.ages);
    }
    // Means over both are means of means, so that decoded planes are shared.
    const parts = [];
    if (head === MEAN) for (let h = 0; h < this.heads; h++) parts.push(this.plane(layer, h));
    else for (let l = 0; l < this.layers; l++) parts.push(this.plane(l, head));
    return meanPlane(await Promise.all(parts));
  }
}

function choices(count) {
  const numbers = Array.from({ length: count }, (_, i) => i);
  return count > 1 ? [...numbers, MEAN] : numbers;
}

function meanPlane(planes) {
  const weights = new Float32Array(planes[0].weights.length);
  for (const plane of planes) {
    for (let i = 0; i < weights.length; i++) weights[i] += plane.weights[i] / planes.length;
  }
  return new Plane(weights, planes[0].steps, planes[0].ages);
}
