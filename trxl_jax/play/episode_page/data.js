// The episode as the page holds it. Arrays are decoded at once, attention when it is looked at.

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

// Attention of one layer and head, or of a mean over them: weights[step * ages + age], where age 0 is the step before.
class Plane {
  constructor(weights, steps, ages) {
    this.weights = weights;
    this.steps = steps;
    this.ages = ages;
  }

  // The weights of a step's past, newest first; empty for the first step.
  row(step) {
    const start = step * this.ages;
    return this.weights.subarray(start, start + Math.min(step, this.ages));
  }

  // 0 for steps that are out of sight.
  weight(step, past) {
    return this.row(step)[step - 1 - past] ?? 0;
  }

  // The `count` past steps with the largest weights, largest first.
  strongest(step, count) {
    const seen = Array.from(this.row(step), (weight, age) => ({ step: step - 1 - age, weight }));
    return seen.sort((a, b) => b.weight - a.weight).slice(0, count);
  }

  // Over how many steps the weights spread: the exponential of their entropy.
  spread(step) {
    let entropy = 0;
    for (const weight of this.row(step)) if (weight > 0) entropy -= weight * Math.log(weight);
    return Math.exp(entropy);
  }

  // The weight that a share `fraction` of all visible ones stays below.
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

class Episode {
  constructor(record) {
    this.record = record;
    this.steps = record.steps;
    this.layers = record.layers;
    this.heads = record.heads;
    this.ages = record.attention.ages;
    this.branches = record.branches;
    this.actions = decodeArray(record.actions, Int32Array);
    this.probabilities = decodeArray(record.probabilities, Float32Array);
    this.entropies = decodeArray(record.entropies, Float32Array);
    this.values = decodeArray(record.values, Float32Array);
    this.rewards = decodeArray(record.rewards, Float32Array);
    this.vectors = record.vectors && decodeArray(record.vectors.numbers, Float32Array);
    this.planes = new Map();
  }

  // What can be picked: every layer or head, and their mean where there are several.
  layerChoices() {
    return choices(this.layers);
  }

  headChoices() {
    return choices(this.heads);
  }

  // A promise of the attention of a layer and head, counted from 0, or MEAN in place of either.
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
    // A mean of means, which share what they decode.
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
