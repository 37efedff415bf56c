// The arithmetic of a U-Net for a page: what `engine.js` strings together. Compiled to WebAssembly
// with 128-bit SIMD (four float32 at a time) by `make front-end`; no library, no memory of its own.
//
// A map is a plane of float32 with a frame of zeros, so that a padded convolution is an unpadded one
// that starts one pixel further up and left. A row is 4 zeros, the pixels, zeros up to a multiple of
// 8, and 4 zeros more; there is one row of zeros above and one below. The maps of a stage follow one
// upon another. The frame is never written, so the zeros that the memory begins with remain.
//
// Weights come packed in groups of four output channels (`engine.js`, pack): one pixel that was read
// then serves four sums.

#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)") // the rest stays small: -fno-unroll-loops

INLINE int row(int width) { return ((width + 7) & ~7) + 8; }
INLINE int plane(int height, int width) { return (height + 2) * row(width); }
INLINE float *pixel(float *map, int width, int y, int x) { return map + (y + 1) * row(width) + 4 + x; }

// Store the first `count` of four values.
INLINE void store(float *to, v128_t four, int count) {
  if (count >= 4) {
    wasm_v128_store(to, four);
    return;
  }
  float each[4];
  wasm_v128_store(each, four);
  for (int k = 0; k < count; k++) to[k] = each[k];
}

// Sums of one group of four output channels at 4 * `wide` pixels of a row: taps * taps * channels
// products each.
INLINE void sum(const float *from, int step, int line, const float *weights, int channels, int taps,
                int wide, v128_t sums[4][2]) {
  for (int c = 0; c < channels; c++, from += step)
    for (int dy = 0; dy < taps; dy++)
      UNROLL
      for (int dx = 0; dx < taps; dx++, weights += 4) {
        const float *at = from + dy * line + dx;
        v128_t seen[2];
        UNROLL
        for (int k = 0; k < wide; k++) seen[k] = wasm_v128_load(at + 4 * k);
        UNROLL
        for (int o = 0; o < 4; o++) {
          v128_t weight = wasm_v128_load32_splat(weights + o);
          UNROLL
          for (int k = 0; k < wide; k++)
            sums[o][k] = wasm_f32x4_add(sums[o][k], wasm_f32x4_mul(seen[k], weight));
        }
      }
}

INLINE void convolve(float *from, int channels, int height, int width, const float *weights,
                     const float *bias, float *to, int outputs, int taps, int border, int relu) {
  int out_height = height + 2 * border - taps + 1, out_width = width + 2 * border - taps + 1;
  int step = plane(height, width), line = row(width), out_step = plane(out_height, out_width);
  v128_t zero = wasm_f32x4_splat(0);
  for (int group = 0; group < outputs; group += 4, weights += 4 * taps * taps * channels) {
    int here = outputs - group < 4 ? outputs - group : 4;
    for (int y = 0; y < out_height; y++) {
      for (int x = 0; x < out_width;) {
        int left = out_width - x, wide = left > 4 ? 2 : 1;
        v128_t sums[4][2];
        for (int o = 0; o < 4; o++)
          sums[o][0] = sums[o][1] = wasm_f32x4_splat(o < here ? bias[group + o] : 0);
        const float *at = pixel(from, width, y - border, x - border);
        if (wide == 2)
          sum(at, step, line, weights, channels, taps, 2, sums);
        else
          sum(at, step, line, weights, channels, taps, 1, sums);
        for (int o = 0; o < here; o++) {
          float *into = pixel(to + (group + o) * out_step, out_width, y, x);
          for (int k = 0; k < wide; k++) {
            v128_t done = relu ? wasm_f32x4_pmax(zero, sums[o][k]) : sums[o][k];
            store(into + 4 * k, done, left - 4 * k);
          }
        }
        x += 4 * wide;
      }
    }
  }
}

// The blue arrow: 3×3 convolution, with a border of zeros (1) or without (0), then ReLU.
EXPORT(blue)
void blue(float *from, int channels, int height, int width, const float *weights, const float *bias,
          float *to, int outputs, int border) {
  convolve(from, channels, height, width, weights, bias, to, outputs, 3, border, 1);
}

// The teal arrow: 1×1 convolution.
EXPORT(teal)
void teal(float *from, int channels, int height, int width, const float *weights, const float *bias,
          float *to, int outputs) {
  convolve(from, channels, height, width, weights, bias, to, outputs, 1, 0, 0);
}

// The red arrow: the largest of 2×2 pixels.
EXPORT(red)
void red(float *from, int channels, int height, int width, float *to) {
  int step = plane(height, width), line = row(width), out_step = plane(height / 2, width / 2);
  for (int c = 0; c < channels; c++)
    for (int y = 0; y < height / 2; y++) {
      const float *at = pixel(from + c * step, width, 2 * y, 0);
      float *into = pixel(to + c * out_step, width / 2, y, 0);
      for (int x = 0; x < width / 2; x += 4, at += 8) {
        v128_t one = wasm_f32x4_max(wasm_v128_load(at), wasm_v128_load(at + line));
        v128_t two = wasm_f32x4_max(wasm_v128_load(at + 4), wasm_v128_load(at + 4 + line));
        v128_t even = wasm_i32x4_shuffle(one, two, 0, 2, 4, 6);
        v128_t odd = wasm_i32x4_shuffle(one, two, 1, 3, 5, 7);
        store(into + x, wasm_f32x4_max(even, odd), width / 2 - x);
      }
    }
}

// The green arrow: 2×2 transposed convolution with stride 2. Weights: output, input, 2×2.
EXPORT(green)
void green(float *from, int channels, int height, int width, const float *weights,
           const float *bias, float *to, int outputs) {
  int step = plane(height, width), out_step = plane(2 * height, 2 * width);
  for (int c = 0; c < outputs; c++, weights += 4 * channels)
    for (int y = 0; y < height; y++)
      for (int x = 0; x < width; x += 4) {
        v128_t sums[4][2]; // [place in the 2×2][one group of four pixels]
        for (int k = 0; k < 4; k++) sums[k][0] = wasm_f32x4_splat(bias[c]);
        sum(pixel(from, width, y, x), step, 0, weights, channels, 1, 1, sums);
        for (int dy = 0; dy < 2; dy++) {
          v128_t even = sums[2 * dy][0], odd = sums[2 * dy + 1][0];
          float *into = pixel(to + c * out_step, 2 * width, 2 * y + dy, 2 * x);
          store(into, wasm_i32x4_shuffle(even, odd, 0, 4, 1, 5), 2 * (width - x));
          store(into + 4, wasm_i32x4_shuffle(even, odd, 2, 6, 3, 7), 2 * (width - x) - 4);
        }
      }
}

// The other green arrow: bilinear interpolation by 2, `align_corners=False`.
EXPORT(stretch)
void stretch(float *from, int channels, int height, int width, float *to) {
  for (int c = 0; c < channels; c++, from += plane(height, width), to += plane(2 * height, 2 * width))
    for (int y = 0; y < 2 * height; y++) {
      int other = y / 2 + (y & 1 ? 1 : -1);
      if (other < 0 || other >= height) other = y / 2;
      const float *near = pixel(from, width, y / 2, 0), *far = pixel(from, width, other, 0);
      float *into = pixel(to, 2 * width, y, 0);
      for (int x = 0; x < width; x++) {
        int before = x ? x - 1 : x, after = x + 1 < width ? x + 1 : x;
        float here = 0.75f * near[x] + 0.25f * far[x];
        into[2 * x] = 0.75f * here + 0.25f * (0.75f * near[before] + 0.25f * far[before]);
        into[2 * x + 1] = 0.75f * here + 0.25f * (0.75f * near[after] + 0.25f * far[after]);
      }
    }
}

// The gray arrow: copy the middle of each map, `scale` times its values (1: as they are), or add it
// to what is there.
EXPORT(gray)
void gray(float *from, int channels, int height, int width, float *to, int out_height,
          int out_width, float scale, int add) {
  int top = (height - out_height) / 2, left = (width - out_width) / 2;
  v128_t factor = wasm_f32x4_splat(scale);
  for (int c = 0; c < channels; c++, from += plane(height, width), to += plane(out_height, out_width))
    for (int y = 0; y < out_height; y++) {
      const float *at = pixel(from, width, y + top, left);
      float *into = pixel(to, out_width, y, 0);
      for (int x = 0; x < out_width; x += 4) {
        v128_t value = wasm_f32x4_mul(factor, wasm_v128_load(at + x));
        if (add) value = wasm_f32x4_add(value, wasm_v128_load(into + x));
        store(into + x, value, out_width - x);
      }
    }
}
