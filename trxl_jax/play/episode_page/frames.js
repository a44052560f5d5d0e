// Draws observations on canvases: frames cut from sprite sheets, which are decoded on demand, or bar charts of vectors.

const DECODED_PIXELS = 40e6; // size of the cache of decoded sheets, in pixels

class Frames {
  constructor(packed) {
    this.width = packed.width;
    this.height = packed.height;
    this.perSheet = packed.per_sheet;
    this.sheets = packed.sheets;
    this.index = decodeArray(packed.index, Uint32Array);
    this.decoded = new Map(); // least recently used first
  }

  sheet(number) {
    const image = this.decoded.get(number)
      ?? createImageBitmap(new Blob([decodeBytes(this.sheets[number])], { type: "image/webp" }));
    this.decoded.delete(number);
    this.decoded.set(number, image);
    const kept = Math.max(2, DECODED_PIXELS / (this.width * this.height * this.perSheet));
    for (const oldest of this.decoded.keys()) {
      if (this.decoded.size <= kept) break;
      this.decoded.delete(oldest);
    }
    return image;
  }

  // Draws a step's frame, unless another step was requested for the canvas while the sheet was decoded.
  async draw(canvas, step) {
    canvas.wanted = step;
    const frame = this.index[step];
    const number = Math.floor(frame / this.perSheet);
    const image = await this.sheet(number);
    if (number + 1 < this.sheets.length) this.sheet(number + 1); // prefetch, for uninterrupted playback
    if (canvas.wanted !== step) return;
    if (canvas.width !== this.width) canvas.width = this.width;
    if (canvas.height !== this.height) canvas.height = this.height;
    const top = (frame % this.perSheet) * this.height;
    canvas.getContext("2d").drawImage(image, 0, top, this.width, this.height, 0, 0, this.width, this.height);
    canvas.dataset.step = step;
  }
}

const GLYPH_PIXELS = 168;

// Draws a vector as a bar chart around zero, scaled to the episode's largest value.
class VectorGlyphs {
  constructor(vectors, size) {
    this.width = GLYPH_PIXELS;
    this.height = GLYPH_PIXELS;
    this.vectors = vectors;
    this.size = size;
    this.limit = vectors.reduce((limit, x) => Math.max(limit, Math.abs(x)), 0) || 1;
  }

  at(step) {
    return this.vectors.subarray(step * this.size, (step + 1) * this.size);
  }

  draw(canvas, step) {
    canvas.width = this.width;
    canvas.height = this.height;
    const context = canvas.getContext("2d");
    const middle = this.height / 2;
    const slot = (this.width - 24) / this.size;
    context.fillStyle = colour("--muted");
    context.fillRect(12, middle - 1, this.width - 24, 2);
    context.fillStyle = colour("--ink");
    this.at(step).forEach((x, i) => {
      const length = (x / this.limit) * (middle - 14);
      context.fillRect(12 + (i + 0.2) * slot, middle, 0.6 * slot, -length);
    });
    canvas.dataset.step = step;
  }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
